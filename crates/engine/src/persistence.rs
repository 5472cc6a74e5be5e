//! Clients that stay with their real server (Linux, `net/netfilter/ipvs/ip_vs_core.c`,
//! `ip_vs_sched_persist`; SPEC C4).
//!
//! A new connection of a persistent service follows its client's template, whatever weight and load
//! the real server has, as long as that is available; without one a real server is scheduled and a
//! template made for it. Templates are made when the session is: for proxied services after the
//! client has proved its address. If there is no room, the connection is served without.
//!
//! The template of a real server that has been removed or marked down no longer holds, nor, with
//! `expire_quiescent_template`, that of one of weight 0. Unlike in the kernel, neither does that of a
//! real server that did not answer, as the SYN proxy notices: the next one takes the client over.

use seawall_fastpath::Endpoint;
use seawall_fastpath::native::Memory;

use crate::counters::Counter;
use crate::desired::Persistence;
use crate::engine::{Engine, Request};
use crate::next_hops::Sender;
use crate::templates::{NewTemplate, TemplateKey};

/// The real server of a new session, and the template that named it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Choice {
    pub(crate) server: u32,
    template: Option<u32>,
}

impl<M: Memory> Engine<M> {
    /// Chooses a real server of `service` for a connection of `client`, never `excluded`.
    pub(crate) fn choose(
        &mut self,
        now: u64,
        service: u32,
        client: Endpoint,
        excluded: Option<u32>,
    ) -> Option<Choice> {
        if let Some((_, key)) = self.template_key(service, client) {
            let records = self.table.memory().templates();
            if let Some(at) = self.templates.find(records, &key) {
                let server = records.get(at as usize)?.server.load();
                let quiescent = self.config.expire_quiescent_template;
                let found = self.services.get(service as usize)?;
                if Some(server) != excluded && found.keeps(server, quiescent) {
                    return Some(Choice { server, template: Some(at) });
                }
                self.templates.invalidate(records, at);
            }
        }
        let server = self.schedule(now, service, client, excluded)?;
        Some(Choice { server, template: None })
    }

    /// Puts a session that has just been opened by `choice` under its client's template.
    pub(crate) fn control(&mut self, now: u64, index: u32, choice: Choice, sender: Sender) {
        let Some(session) = self.sessions.get(index as usize) else { return };
        let Some(client) = self.table.slot(index).map(|slot| slot.ends().client) else { return };
        let service = session.service;
        let Some((persistence, key)) = self.template_key(service, client) else { return };
        let proven = sender == Sender::Proven;
        let template = choice.template.or_else(|| {
            let timeout = persistence.timeout;
            let new = NewTemplate { key, server: choice.server, timeout, assured: proven };
            let made = self.templates.insert(self.table.memory().templates(), &new);
            if made.is_some() {
                self.count_template(service, choice.server, 1);
            }
            made
        });
        let Some(at) = template else { return self.count(Counter::ExceededTemplates) };
        let records = self.table.memory().templates();
        self.templates.attach(records, at, now);
        if proven {
            self.templates.assure(records, at);
        }
        if let Some(session) = self.sessions.get_mut(index as usize) {
            session.template = Some(at);
        }
    }

    /// A session no longer belongs to its template.
    pub(crate) fn uncontrol(&mut self, index: u32) {
        let session = self.sessions.get_mut(index as usize);
        if let Some(at) = session.and_then(|session| session.template.take()) {
            self.templates.detach(at);
        }
    }

    /// A session's client has proved its address by what it has said since.
    pub(crate) fn assure_template(&mut self, index: u32) {
        if let Some(at) = self.sessions.get(index as usize).and_then(|session| session.template) {
            self.templates.assure(self.table.memory().templates(), at);
        }
    }

    /// Ends the templates whose time is up.
    pub(crate) fn expire_templates(&mut self, now: u64) {
        while let Some((service, server)) =
            self.templates.pop_expired(self.table.memory().templates(), now)
        {
            self.count_template(service, server, -1);
        }
    }

    /// Has the clients of a service stay with their real server from now on, or no longer. Templates
    /// that there are keep their time.
    pub fn set_persistence(&mut self, service: u32, persistence: Option<Persistence>) {
        if let Some(found) = self.services.get_mut(service as usize) {
            found.spec.persistence = persistence;
            self.request(Request::ServiceChanged(service));
        }
    }

    fn template_key(&self, service: u32, client: Endpoint) -> Option<(Persistence, TemplateKey)> {
        let persistence = self.services.get(service as usize)?.spec.persistence?;
        let client = persistence.netmask.apply(client.address);
        Some((persistence, TemplateKey { service, client }))
    }

    fn count_template(&mut self, service: u32, server: u32, change: i32) {
        if let Some(found) = self.services.get_mut(service as usize) {
            found.count_template(server, change);
            self.load_changed(service);
        }
    }
}

//! Clients that stay with their real server (Linux, `net/netfilter/ipvs/ip_vs_core.c`,
//! `ip_vs_sched_persist`; SPEC C4).
//!
//! A new connection of a persistent service follows its client's template, whatever weight and load
//! the real server has, as long as that is available; without one a real server is scheduled and a
//! template made for it. Templates are made when the session is: for proxied services after the
//! client has proved its address, for others by the SYN or the first datagram. What becomes of those
//! whose client has not proved it yet [`crate::templates`] says. If there is no room, the connection
//! is served without, and looks for it once more when the client has proved its address.
//!
//! The template of a real server that has been removed or marked down no longer holds, nor, with
//! `expire_quiescent_template`, that of one of weight 0. Unlike in the kernel, neither does that of a
//! real server that did not answer, as the SYN proxy notices: the next one takes the client over. While
//! there is no other it stays.

use seawall_fastpath::native::Memory;
use seawall_fastpath::{Endpoint, TcpState, Transport};

use crate::counters::Counter;
use crate::desired::Persistence;
use crate::engine::{Engine, Request};
use crate::next_hops::Sender;
use crate::templates::{NewTemplate, TemplateKey, Unproven};
use crate::udp;

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
        let key = self.template_key(service, client).map(|(_, key)| key);
        let known = key.and_then(|key| self.template(&key));
        if let Some((_, server)) = known
            && Some(server) != excluded
            && let Some(found) = self.services.get(service as usize)
            && found.keeps(server, self.config.expire_quiescent_template)
        {
            return Some(Choice { server, template: known.map(|(at, _)| at) });
        }
        let server = self.schedule(now, service, client, excluded)?;
        if let Some((at, _)) = known {
            self.templates.invalidate(self.table.memory().templates(), at);
        }
        Some(Choice { server, template: None })
    }

    /// The valid template of `key`, and its real server.
    fn template(&self, key: &TemplateKey) -> Option<(u32, u32)> {
        let records = self.table.memory().templates();
        let at = self.templates.find(records, key)?;
        Some((at, records.get(at as usize)?.server.load()))
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
            self.make_template(&NewTemplate {
                key,
                server: choice.server,
                timeout,
                assured: proven,
            })
        });
        let Some(at) = template else { return self.count(Counter::ExceededTemplates) };
        self.attach(now, index, at);
        if proven {
            self.templates.assure(self.table.memory().templates(), at);
        }
    }

    fn make_template(&mut self, new: &NewTemplate) -> Option<u32> {
        let limit = self.table.memory().templates().len() as u32 / udp::SHARE;
        if self.is_udp(new.key.service) && self.udp_templates >= limit {
            return None;
        }
        let made = self.templates.insert(self.table.memory().templates(), new)?;
        self.count_template(new.key.service, new.server, 1);
        Some(made)
    }

    fn attach(&mut self, now: u64, index: u32, at: u32) {
        let records = self.table.memory().templates();
        let Some(session) = self.sessions.get_mut(index as usize) else { return };
        if session.one_packet {
            // What it is for is over already.
            return self.templates.restart(records, at, now);
        }
        self.templates.attach(records, at, now);
        session.template = Some(at);
    }

    /// A session no longer belongs to its template.
    pub(crate) fn uncontrol(&mut self, index: u32) {
        let Some(session) = self.sessions.get_mut(index as usize) else { return };
        let unproven = unproven(session.transport);
        if let Some(at) = session.template.take() {
            self.templates.detach(self.table.memory().templates(), at, unproven);
        }
    }

    /// What no session came back to, after a takeover.
    pub(crate) fn settle_templates(&mut self) {
        let services = &self.services;
        self.templates.settle_unassured(self.table.memory().templates(), |service| {
            let found = services.get(service as usize);
            unproven(found.map_or(Transport::Tcp, |found| found.spec.transport))
        });
    }

    /// A session's client has proved its address by what it has said since. If there was no room for
    /// its template then, there may be now.
    pub(crate) fn assure_template(&mut self, now: u64, index: u32) {
        let Some(session) = self.sessions.get(index as usize) else { return };
        let (service, server) = (session.service, session.server);
        if let Some(at) = session.template {
            return self.templates.assure(self.table.memory().templates(), at);
        }
        let Some(client) = self.table.slot(index).map(|slot| slot.ends().client) else { return };
        let Some((persistence, key)) = self.template_key(service, client) else { return };
        let timeout = persistence.timeout;
        let at = match self.template(&key) {
            Some((at, of)) if of == server => Some(at),
            // The client has come again meanwhile, and gone elsewhere.
            Some(_) => return,
            None => self.make_template(&NewTemplate { key, server, timeout, assured: true }),
        };
        let Some(at) = at else { return self.count(Counter::ExceededTemplates) };
        self.attach(now, index, at);
        self.templates.assure(self.table.memory().templates(), at);
    }

    /// Takes over the templates of another engine; gives how many there are, and how many were of nobody
    /// and freed. What leads to sessions is found again by [`Engine::control_again`].
    pub(crate) fn adopt_templates(&mut self, now: u64) -> (u32, u32) {
        let records = self.table.memory().templates();
        let services = &self.services;
        let orphans = self.templates.adopt(records, now, |service, server| {
            let service = services.get(service as usize);
            service.is_some_and(|service| service.servers.get(server as usize).is_some())
        });
        let mut live = 0;
        for record in records {
            if record.flags.load() != 0 {
                live += 1;
                if let Some(found) = self.services.get_mut(record.service.load() as usize) {
                    found.count_template(record.server.load(), 1);
                    self.udp_templates += u32::from(found.spec.transport == Transport::Udp);
                }
            }
        }
        (live, orphans)
    }

    /// Finds the template of a session that was taken over: that of its client, if it names the same
    /// real server. One that no longer holds need not wait for its sessions.
    pub(crate) fn control_again(&mut self, index: u32) {
        let Some(session) = self.sessions.get(index as usize) else { return };
        let (service, server) = (session.service, session.server);
        let Some(slot) = self.table.slot(index) else { return };
        // The engine before may not have heard of it.
        let established = slot.state().state == TcpState::Established;
        let Some((_, key)) = self.template_key(service, slot.ends().client) else { return };
        let Some((at, of)) = self.template(&key) else { return };
        let Some(session) = self.sessions.get_mut(index as usize) else { return };
        if of == server {
            if !session.one_packet {
                session.template = Some(at);
                self.templates.control(at);
            }
            if established {
                self.templates.assure(self.table.memory().templates(), at);
            }
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

    fn is_udp(&self, service: u32) -> bool {
        let found = self.services.get(service as usize);
        found.is_some_and(|found| found.spec.transport == Transport::Udp)
    }

    fn count_template(&mut self, service: u32, server: u32, change: i32) {
        if self.is_udp(service) {
            self.udp_templates = self.udp_templates.saturating_add_signed(change);
        }
        if let Some(found) = self.services.get_mut(service as usize) {
            found.count_template(server, change);
            self.load_changed(service);
        }
    }
}

/// What becomes of a template that nobody has proved an address for after its last session: over TCP
/// who is there proves it in the first.
const fn unproven(transport: Transport) -> Unproven {
    match transport {
        Transport::Tcp => Unproven::Ends,
        Transport::Udp => Unproven::Stays,
    }
}

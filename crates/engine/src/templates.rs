//! Persistence templates: which real server a service's clients stay with (Linux,
//! `net/netfilter/ipvs/ip_vs_conn.c`, connections with `IP_VS_CONN_F_TEMPLATE`).
//!
//! The templates themselves lie in [`Memory::templates`](seawall_fastpath::native::Memory), as
//! sessions lie in slots; what is here leads to them. There are as many as that array has room for,
//! and those that no client has proved an address for (services without the proxy) may take a
//! quarter of it (SPEC B6). Over TCP these end with their last session, for who is there proves it in
//! its first. Over UDP, where by DR and TUNNEL nobody ever does, they last as long as any other, but
//! while more than half of that quarter is taken they end after [`PRESSED_MS`] without a new session.
//! The index is keyed, so that nobody can aim at one of its chains.

use seawall_fastpath::Addr;
use seawall_fastpath::layout::Template;
use seawall_fastpath::siphash::{self, Key};

use crate::udp::PRESSED_MS;
use crate::wheel::Wheel;

const NONE: u32 = u32::MAX;
/// Of the templates, one in this many may be unproven; at least one.
const SHARE: u32 = 4;
/// How long a template whose time is up lives on while sessions of its are left, in milliseconds
/// (`ip_vs_conn_expire`); from then on its timeout is this.
pub(crate) const EXPIRE_LATER_MS: u32 = 60_000;

/// What names a template. The port is the service's: with port 0 a client has one template for
/// all ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TemplateKey {
    pub(crate) service: u32,
    /// Masked.
    pub(crate) client: Addr,
}

/// A template that is to be made.
pub(crate) struct NewTemplate {
    pub(crate) key: TemplateKey,
    pub(crate) server: u32,
    /// In milliseconds.
    pub(crate) timeout: u32,
    /// Its client has proved its address.
    pub(crate) assured: bool,
}

/// What becomes of a template that no client has proved an address for, once it controls no session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unproven {
    /// It ends.
    Ends,
    /// It stays until its time is up, or until there are many of its kind.
    Stays,
}

/// The way to the templates.
#[derive(Debug)]
pub(crate) struct Templates {
    key: Key,
    heads: Vec<u32>,
    next: Vec<u32>,
    /// Sessions that each controls (`n_control`).
    controlled: Vec<u32>,
    free: Vec<u32>,
    wheel: Wheel,
    unassured: u32,
}

impl Templates {
    /// Bytes that each template takes here, used or not; the record's own are not in it. The heads of
    /// the index are at most two words a template.
    pub(crate) const BYTES: usize = 5 * size_of::<u32>() + Wheel::BYTES_PER_TIMER;

    /// None yet, of `limit`.
    pub(crate) fn new(limit: usize, key: Key, now: u64) -> Self {
        Self {
            key,
            heads: vec![NONE; limit.next_power_of_two()],
            next: vec![NONE; limit],
            controlled: vec![0; limit],
            free: (0..limit as u32).rev().collect(),
            wheel: Wheel::new(limit, now),
            unassured: 0,
        }
    }

    fn bucket(&self, key: &TemplateKey) -> usize {
        let [high, low] = key.client.0;
        let hash = siphash::hash(self.key, [high, low, key.service.into()]);
        hash as usize & (self.heads.len() - 1)
    }

    /// The valid template of `key`.
    pub(crate) fn find(&self, records: &[Template], key: &TemplateKey) -> Option<u32> {
        let mut at = *self.heads.get(self.bucket(key))?;
        // Ends: each template is in one chain, once.
        while let Some(record) = records.get(at as usize) {
            if record.service.load() == key.service && record.client() == key.client {
                return Some(at);
            }
            at = self.next.get(at as usize).copied().unwrap_or(NONE);
        }
        None
    }

    /// Makes a template, if there is room. Its timer runs when [`Templates::restart`] is called.
    pub(crate) fn insert(&mut self, records: &[Template], new: &NewTemplate) -> Option<u32> {
        if !new.assured && self.unassured >= share(records) {
            return None;
        }
        let at = self.free.pop()?;
        let record = records.get(at as usize)?;
        record.set_client(new.key.client);
        record.timeout.store(new.timeout);
        record.service.store(new.key.service);
        record.server.store(new.server);
        let assured = if new.assured { Template::ASSURED } else { 0 };
        record.flags.store(Template::LIVE | assured);
        self.unassured += u32::from(!new.assured);
        self.controlled[at as usize] = 0;
        self.link(&new.key, at);
        Some(at)
    }

    /// New sessions no longer find it; it ends with its timer and its last session, as any other
    /// (`ip_vs_check_template`).
    pub(crate) fn invalidate(&mut self, records: &[Template], at: u32) {
        let Some(record) = records.get(at as usize) else { return };
        let flags = record.flags.load();
        if flags & Template::INVALID != 0 {
            return;
        }
        let key = TemplateKey { service: record.service.load(), client: record.client() };
        self.unlink(&key, at);
        record.flags.store(flags | Template::INVALID);
    }

    /// Takes over what another has left, at `now`, of services and real servers that `are_known`; frees
    /// the rest and gives how many those were. Which sessions each controls
    /// [`Templates::control`] says.
    pub(crate) fn adopt(
        &mut self,
        records: &[Template],
        now: u64,
        are_known: impl Fn(u32, u32) -> bool,
    ) -> u32 {
        let mut orphans = 0;
        self.free.clear();
        self.unassured = 0;
        for (at, record) in (0..self.next.len() as u32).zip(records).rev() {
            let flags = record.flags.load();
            let (service, server) = (record.service.load(), record.server.load());
            if flags & Template::LIVE == 0 || !are_known(service, server) {
                orphans += u32::from(flags != 0);
                record.flags.store(0);
                self.free.push(at);
                continue;
            }
            self.unassured += u32::from(flags & Template::ASSURED == 0);
            // At most as far away as it can have been set.
            let deadline = record.deadline.load().min(now + u64::from(record.timeout.load()));
            record.deadline.store(deadline);
            self.wheel.arm(at, deadline);
            if flags & Template::INVALID == 0 {
                self.link(&TemplateKey { service, client: record.client() }, at);
            }
        }
        orphans
    }

    /// Those that no client has proved an address for and that control no session go the way of their
    /// service.
    pub(crate) fn settle_unassured(
        &mut self,
        records: &[Template],
        unproven: impl Fn(u32) -> Unproven,
    ) {
        for (at, record) in (0..self.next.len() as u32).zip(records) {
            if record.flags.load() & Template::LIVE != 0 && self.is_of_nobody(record, at) {
                self.leave(record, at, unproven(record.service.load()));
            }
        }
    }

    /// Whether it controls no session and no client has proved its address.
    fn is_of_nobody(&self, record: &Template, at: u32) -> bool {
        self.controlled.get(at as usize) == Some(&0) && record.flags.load() & Template::ASSURED == 0
    }

    /// A template of nobody is left to its fate: its timer looks at it at once.
    fn leave(&mut self, record: &Template, at: u32, unproven: Unproven) {
        if unproven == Unproven::Ends {
            record.deadline.store(0);
        }
        self.wheel.arm(at, 0);
    }

    /// Whether more than half of the share is taken of those that no client has proved an address for.
    pub(crate) fn are_pressed(&self, records: &[Template]) -> bool {
        self.unassured > share(records) / 2
    }

    /// A session that it has made goes on, and its time as before.
    pub(crate) fn control(&mut self, at: u32) {
        if let Some(controlled) = self.controlled.get_mut(at as usize) {
            *controlled += 1;
        }
    }

    fn link(&mut self, key: &TemplateKey, at: u32) {
        let bucket = self.bucket(key);
        self.next[at as usize] = std::mem::replace(&mut self.heads[bucket], at);
    }

    fn unlink(&mut self, key: &TemplateKey, at: u32) {
        let bucket = self.bucket(key);
        let after = self.next[at as usize];
        if self.heads[bucket] == at {
            self.heads[bucket] = after;
            return;
        }
        let mut before = self.heads[bucket];
        while let Some(next) = self.next.get_mut(before as usize) {
            if *next == at {
                *next = after;
                return;
            }
            before = *next;
        }
    }

    /// A session has been made by it: it controls that, and its time begins anew.
    pub(crate) fn attach(&mut self, records: &[Template], at: u32, now: u64) {
        self.control(at);
        self.restart(records, at, now);
    }

    /// A session of its has ended; `unproven` is what becomes of it if that was the last, and no client
    /// has proved its address.
    pub(crate) fn detach(&mut self, records: &[Template], at: u32, unproven: Unproven) {
        let Some(controlled) = self.controlled.get_mut(at as usize) else { return };
        *controlled = controlled.saturating_sub(1);
        let Some(record) = records.get(at as usize) else { return };
        if self.is_of_nobody(record, at) {
            self.leave(record, at, unproven);
        }
    }

    /// A client with it has proved its address.
    pub(crate) fn assure(&mut self, records: &[Template], at: u32) {
        let Some(record) = records.get(at as usize) else { return };
        let flags = record.flags.load();
        if flags & Template::ASSURED == 0 {
            record.flags.store(flags | Template::ASSURED);
            self.unassured = self.unassured.saturating_sub(1);
        }
    }

    /// Its time begins anew: something has gone by it that it need not control, or does already.
    pub(crate) fn restart(&mut self, records: &[Template], at: u32, now: u64) {
        let Some(record) = records.get(at as usize) else { return };
        record.deadline.store(now + u64::from(record.timeout.load()));
        self.arm(record, at, now);
    }

    fn arm(&mut self, record: &Template, at: u32, now: u64) {
        let look = if self.is_of_nobody(record, at) { now + PRESSED_MS } else { u64::MAX };
        self.wheel.arm(at, record.deadline.load().min(look));
    }

    /// Whether it has to make room for others: many of its kind are there, and it has not been used for
    /// a while.
    fn gives_way(&self, records: &[Template], record: &Template, at: u32, now: u64) -> bool {
        let used = record.deadline.load().saturating_sub(record.timeout.load().into());
        self.is_of_nobody(record, at) && self.are_pressed(records) && used + PRESSED_MS <= now
    }

    /// Ends a template whose time is up and that controls no session, until there is none; gives its
    /// service and its real server.
    pub(crate) fn pop_expired(&mut self, records: &[Template], now: u64) -> Option<(u32, u32)> {
        while let Some(at) = self.wheel.pop_due(now) {
            let Some(record) = records.get(at as usize) else { continue };
            if record.deadline.load() > now && !self.gives_way(records, record, at, now) {
                // Further away than the wheel reaches, or only to be looked at.
                self.arm(record, at, now);
            } else if self.controlled[at as usize] > 0 {
                record.timeout.store(EXPIRE_LATER_MS);
                self.restart(records, at, now);
            } else {
                self.invalidate(records, at);
                self.unassured -= u32::from(record.flags.load() & Template::ASSURED == 0);
                record.flags.store(0);
                self.free.push(at);
                return Some((record.service.load(), record.server.load()));
            }
        }
        None
    }

    /// When [`Templates::pop_expired`] is next wanted.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.wheel.next_deadline()
    }
}

/// How many may be of clients that have proved nothing.
fn share(records: &[Template]) -> u32 {
    (records.len() as u32 / SHARE).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: u32 = 10_000;

    fn world(limit: usize) -> (Templates, Vec<Template>) {
        let records = (0..limit).map(|_| Template::default()).collect();
        (Templates::new(limit, Key(1, 2), 0), records)
    }

    fn key(client: u32) -> TemplateKey {
        TemplateKey { service: 3, client: Addr::v4(client) }
    }

    fn template(client: u32, assured: bool) -> NewTemplate {
        NewTemplate { key: key(client), server: client % 5, timeout: TIMEOUT, assured }
    }

    #[test]
    fn a_full_table_finds_all_and_forgets_all() {
        let (mut templates, records) = world(100);
        for client in 0..100 {
            let at = templates.insert(&records, &template(client, true)).expect("room");
            templates.attach(&records, at, 0);
            templates.detach(&records, at, Unproven::Ends);
        }
        assert_eq!(templates.insert(&records, &template(100, true)), None);
        for client in 0..100 {
            let at = templates.find(&records, &key(client)).expect("inserted");
            assert_eq!(records[at as usize].server.load(), client % 5);
            if client % 3 == 0 {
                templates.invalidate(&records, at);
                templates.invalidate(&records, at);
                assert_eq!(templates.find(&records, &key(client)), None);
            }
        }
        let elsewhere = TemplateKey { service: 4, ..key(1) };
        assert_eq!(templates.find(&records, &elsewhere), None);
        let expired = std::iter::from_fn(|| templates.pop_expired(&records, TIMEOUT.into()));
        assert_eq!(expired.count(), 100);
        assert!((0..100).all(|client| templates.find(&records, &key(client)).is_none()));
        assert!(templates.heads.iter().all(|head| *head == NONE));
        assert_eq!((templates.free.len(), templates.next_deadline()), (100, None));
    }

    #[test]
    fn it_lives_as_long_as_a_session_of_its_and_then_by_the_minute() {
        let (mut templates, records) = world(4);
        let at = templates.insert(&records, &template(1, true)).expect("room");
        templates.attach(&records, at, 0);
        templates.attach(&records, at, 5_000);
        assert_eq!(templates.pop_expired(&records, 15_016), None);
        templates.detach(&records, at, Unproven::Ends);
        assert_eq!(templates.pop_expired(&records, 15_016 + 60_016), None, "one is left");
        templates.detach(&records, at, Unproven::Ends);
        let last = 15_016 + 2 * 60_016 + 16;
        assert_eq!(templates.pop_expired(&records, last - 200), None);
        assert!(templates.find(&records, &key(1)).is_some());
        assert_eq!(templates.pop_expired(&records, last), Some((3, 1)));
        assert_eq!(templates.find(&records, &key(1)), None);
    }

    #[test]
    fn one_that_lasts_longer_than_the_wheel_turns_lasts_that_long() {
        let (mut templates, records) = world(1);
        let new = NewTemplate { timeout: 2_000_000, ..template(1, true) };
        let at = templates.insert(&records, &new).expect("room");
        templates.attach(&records, at, 0);
        templates.detach(&records, at, Unproven::Ends);
        assert_eq!(templates.pop_expired(&records, 1_999_000), None);
        assert_eq!(templates.pop_expired(&records, 2_001_000), Some((3, 1)));
    }

    /// SPEC B6: anybody can send from an address that is not his.
    #[test]
    fn the_unproven_take_a_quarter_until_they_are_proved() {
        let (mut templates, records) = world(8);
        let insert = |templates: &mut Templates, client, assured| {
            templates.insert(&records, &template(client, assured))
        };
        let first = insert(&mut templates, 0, false).expect("room");
        let second = insert(&mut templates, 1, false).expect("room");
        assert_eq!(insert(&mut templates, 2, false), None);
        assert!(insert(&mut templates, 2, true).is_some());
        templates.assure(&records, first);
        templates.assure(&records, first);
        assert!(insert(&mut templates, 3, false).is_some());
        assert_eq!(insert(&mut templates, 4, false), None);
        templates.attach(&records, second, 0);
        templates.detach(&records, second, Unproven::Ends);
        assert_eq!(templates.pop_expired(&records, 32), Some((3, 1)), "with its last session");
        assert!(insert(&mut templates, 4, false).is_some());
    }

    /// Where nobody ever proves anything, the time that is configured holds until a flood comes.
    #[test]
    fn the_unproven_of_udp_stay_unless_they_are_many() {
        let (mut templates, records) = world(40);
        let leave = |templates: &mut Templates, client, now| {
            let new = NewTemplate { timeout: 100_000, ..template(client, false) };
            let at = templates.insert(&records, &new).expect("room");
            templates.attach(&records, at, now);
            templates.detach(&records, at, Unproven::Stays);
        };
        let gone = |templates: &mut Templates, now| {
            std::iter::from_fn(|| templates.pop_expired(&records, now)).count()
        };
        for client in 0..5 {
            leave(&mut templates, client, 0);
        }
        assert_eq!(gone(&mut templates, 6_000), 0, "half of the share may stay");
        for client in 5..10 {
            leave(&mut templates, client, 6_000);
        }
        assert_eq!(templates.insert(&records, &template(10, false)), None);
        assert_eq!(gone(&mut templates, 6_100), 0);
        let kept = templates.find(&records, &key(2)).expect("there");
        templates.restart(&records, kept, 7_000);
        assert_eq!(gone(&mut templates, 11_050), 4, "those that nobody has used for 5 s");
        assert_eq!(gone(&mut templates, 11_200), 1, "and no more than are too many");
        assert_eq!(gone(&mut templates, 90_000), 0);
        assert!(templates.find(&records, &key(2)).is_some());
        assert_eq!(gone(&mut templates, 107_100), 5, "by their own time");
        assert_eq!((templates.unassured, templates.next_deadline()), (0, None));
    }
}

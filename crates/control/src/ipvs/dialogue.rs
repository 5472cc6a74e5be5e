//! One datagram in, the datagrams that answer it out.

use std::time::Duration;

use rustix::io::Errno;

use super::netlink::{Attributes, Header, Message, Writer};
use super::request::{self, Request, Target};
use super::uapi::{
    GENL_ID_CTRL, IPVS_ID, IPVS_NAME, IPVS_VERSION, NLMSG_MIN_TYPE, attr, cmd, ctrl, nlm,
};
use super::{Backend, Table, reply};
use crate::api::Declined;
use crate::config::ServiceConfig;
use crate::report::ServiceReport;

/// How old the figures of real servers may be: ipvsadm asks for the services, and then for those of
/// each.
const AGE: Duration = Duration::from_millis(500);
/// Bytes of a datagram of a dump; a page, which every reader has room for.
const DATAGRAM: usize = 4096;

/// Answers a datagram of netlink messages.
pub(super) fn answer(backend: &dyn Backend, datagram: &[u8]) -> Vec<Vec<u8>> {
    let mut replies = Replies::default();
    let mut dumped = false;
    for message in Message::all(datagram) {
        if message.header.flags & nlm::REQUEST == 0 {
            continue;
        }
        let dump = message.header.flags & nlm::DUMP == nlm::DUMP;
        let result = match message.header.kind {
            // One at a time, as in the kernel (`__netlink_dump_start()`).
            _ if dump && dumped => Err(Errno::BUSY),
            kind if kind < NLMSG_MIN_TYPE => Ok(Outcome::Acknowledged),
            GENL_ID_CTRL => resolve(&message, &mut replies),
            IPVS_ID => serve(backend, &message, &mut replies),
            _ => Err(Errno::NOENT),
        };
        dumped |= dump;
        let acknowledge = message.header.flags & nlm::ACK != 0;
        let error = result.err();
        // A dump ends by a message of its own.
        if error.is_some() || acknowledge && result != Ok(Outcome::Dumped) {
            replies.push(|writer| writer.acknowledgment(&message, error));
        }
    }
    replies.into_datagrams()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Acknowledged,
    Dumped,
}

/// Datagrams, each with messages as far as there is room.
#[derive(Default)]
struct Replies {
    full: Vec<Vec<u8>>,
    last: Writer,
}

impl Replies {
    /// A datagram of its own, as the kernel sends whatever is no part of a dump.
    fn push(&mut self, write: impl FnOnce(&mut Writer)) {
        self.flush();
        write(&mut self.last);
        self.flush();
    }

    /// A part of a dump.
    fn part(&mut self, write: impl FnOnce(&mut Writer)) {
        let mut part = Writer::default();
        write(&mut part);
        if self.last.len() + part.len() > DATAGRAM {
            self.flush();
        }
        self.last.append(&part);
    }

    /// The answer to a request of the family `IPVS`.
    fn one(&mut self, to: &Message<'_>, command: u8, attributes: impl FnOnce(&mut Writer)) {
        let header = header(to, IPVS_ID, 0);
        self.push(|writer| writer.command(header, (command, IPVS_VERSION), attributes));
    }

    /// The same, in a dump.
    fn one_of_many(&mut self, to: &Message<'_>, command: u8, attributes: impl FnOnce(&mut Writer)) {
        let header = header(to, IPVS_ID, nlm::MULTI);
        self.part(|writer| writer.command(header, (command, IPVS_VERSION), attributes));
    }

    /// The end of a dump.
    fn end(&mut self, to: &Message<'_>) -> Outcome {
        self.part(|writer| writer.done(&to.header));
        Outcome::Dumped
    }

    fn flush(&mut self) {
        let last = std::mem::take(&mut self.last).into_bytes();
        if !last.is_empty() {
            self.full.push(last);
        }
    }

    fn into_datagrams(mut self) -> Vec<Vec<u8>> {
        self.flush();
        self.full
    }
}

/// The header of an answer.
fn header(message: &Message<'_>, kind: u16, flags: u16) -> Header {
    Header { kind, flags, ..message.header }
}

/// The family that names families: `IPVS`, and itself.
fn resolve(message: &Message<'_>, replies: &mut Replies) -> Result<Outcome, Errno> {
    let (command, attributes) = message.command().ok_or(Errno::INVAL)?;
    if command != ctrl::GETFAMILY {
        return Err(Errno::OPNOTSUPP);
    }
    let families = [
        (GENL_ID_CTRL, ctrl::NAME, u32::from(ctrl::VERSION), 10),
        (IPVS_ID, IPVS_NAME, u32::from(IPVS_VERSION), attr::MAX),
    ];
    let write = |writer: &mut Writer, flags, (id, name, version, max): (u16, &str, u32, u32)| {
        let header = header(message, GENL_ID_CTRL, flags);
        writer.command(header, (ctrl::NEWFAMILY, ctrl::VERSION), |writer| {
            writer.text(ctrl::FAMILY_NAME, name);
            writer.u16(ctrl::FAMILY_ID, id);
            writer.u32(ctrl::FAMILY_VERSION, version);
            writer.u32(ctrl::HDRSIZE, 0);
            writer.u32(ctrl::MAXATTR, max);
        });
    };
    if message.header.flags & nlm::DUMP == nlm::DUMP {
        for family in families {
            replies.part(|writer| write(writer, nlm::MULTI, family));
        }
        return Ok(replies.end(message));
    }
    let attributes = Attributes::new(attributes);
    let id = attributes.u16(ctrl::FAMILY_ID)?;
    let name = attributes.text(ctrl::FAMILY_NAME, 15)?;
    if id.is_none() && name.is_none() {
        return Err(Errno::INVAL);
    }
    let asked = |(its, named, ..): &(u16, &str, u32, u32)| match name {
        Some(name) => *named == name,
        None => Some(*its) == id,
    };
    let family = families.into_iter().find(asked).ok_or(Errno::NOENT)?;
    replies.push(|writer| write(writer, 0, family));
    Ok(Outcome::Acknowledged)
}

fn serve(
    backend: &dyn Backend,
    message: &Message<'_>,
    replies: &mut Replies,
) -> Result<Outcome, Errno> {
    let config = || backend.config().map_err(busy);
    let table = |age| backend.table(age).map_err(busy);
    match request::read(message)? {
        Request::Change(change) => {
            backend.change(&change).map_err(|refusal| {
                backend.refused(&change, &refusal);
                refusal.errno
            })?;
        }
        Request::Info => {
            let config = config()?;
            replies.one(message, cmd::SET_INFO, |writer| reply::info(writer, &config));
        }
        Request::Timeouts => {
            let timeouts = &config()?.timeouts;
            replies.one(message, cmd::SET_CONFIG, |writer| reply::timeouts(writer, timeouts));
        }
        Request::Service(target) => {
            let table = table(Duration::ZERO)?;
            let (service, report) = find(&table, target).ok_or(Errno::SRCH)?;
            let attributes = |writer: &mut _| reply::service(writer, service, report);
            replies.one(message, cmd::NEW_SERVICE, attributes);
        }
        Request::Services => {
            for (service, report) in table(Duration::ZERO)?.services() {
                let attributes = |writer: &mut _| reply::service(writer, service, report);
                replies.one_of_many(message, cmd::NEW_SERVICE, attributes);
            }
            return Ok(replies.end(message));
        }
        Request::Destinations(target) => {
            let table = table(AGE)?;
            let found = target.and_then(|target| find(&table, target)).into_iter();
            let servers = found.flat_map(|(service, report)| super::with_reports(service, report));
            for (server, report) in servers {
                let attributes = |writer: &mut _| reply::destination(writer, server, report);
                replies.one_of_many(message, cmd::NEW_DEST, attributes);
            }
            return Ok(replies.end(message));
        }
        Request::Daemons => return Ok(replies.end(message)),
        Request::RemoveDaemon => return Err(Errno::SRCH),
    }
    Ok(Outcome::Acknowledged)
}

fn busy(_: Declined) -> Errno {
    Errno::AGAIN
}

fn find(table: &Table, target: Target) -> Option<(&ServiceConfig, &ServiceReport)> {
    let Target::Address { address, protocol } = target else { return None };
    let is_it = |service: &ServiceConfig| {
        service.address == address && reply::protocol(service.protocol) == protocol
    };
    table.services().find(|(service, _)| is_it(service))
}

//! One netlink socket: request, acknowledgement, dump.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{Error, Result};

/// Bytes of the receive buffer. The kernel fills dumps in pieces of at most 32 KiB
/// (`netlink_dump`); a single link with many virtual functions may be longer.
const BUFFER_SIZE: usize = 128 * 1024;

/// A dump that the kernel reports as interrupted by a change is repeated at most this often.
const DUMP_ATTEMPTS: usize = 16;

/// `NLMSGERR_ATTR_MSG`: the kernel's explanation of a refusal, a string.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Bytes of a netlink header, which is all of the request that a capped acknowledgement repeats.
const HEADER_SIZE: usize = 16;

/// What a request is about, for its errors.
pub(super) struct Subject {
    pub(super) request: &'static str,
    pub(super) object: String,
}

impl Subject {
    pub(super) fn new(request: &'static str, object: impl Into<String>) -> Self {
        Self { request, object: object.into() }
    }

    pub(super) fn not_understood(&self, reason: impl Into<String>) -> Error {
        Error::Answer { request: self.request, object: self.object.clone(), reason: reason.into() }
    }
}

/// A client of the kernel's rtnetlink, bound to the network namespace it was opened in.
///
/// Every method sends one request and waits for its answer; the kernel answers at once, so no
/// call blocks for longer than the work itself takes.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a client in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`] when the socket cannot be made.
    pub fn open() -> Result<Self> {
        let at = |action| move |source| Error::Socket { action, source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(at("open"))?;
        socket.bind_auto().map_err(at("bind"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(at("connect"))?;
        // Both only improve errors: explanations, and no echo of the request before them.
        socket.set_ext_ack(true).map_err(at("enable explanations on"))?;
        socket.set_cap_ack(true).map_err(at("shorten acknowledgements on"))?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER_SIZE) })
    }

    /// Sends a request that changes something and waits for the acknowledgement.
    pub(super) fn change(
        &mut self,
        subject: &Subject,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        loop {
            for message in self.receive(subject)? {
                match message.payload {
                    NetlinkPayload::Error(error) => {
                        return finish(subject, &error, message.header.flags);
                    }
                    // An echo or notification of the change itself is not asked for.
                    _ => continue,
                }
            }
        }
    }

    /// Sends a request for one object; the kernel answers with it or with an error.
    pub(super) fn query(
        &mut self,
        subject: &Subject,
        message: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage> {
        self.send(message, NLM_F_REQUEST)?;
        loop {
            // A datagram of nothing but stale answers leaves none.
            let Some(message) = self.receive(subject)?.into_iter().next() else { continue };
            return match message.payload {
                NetlinkPayload::InnerMessage(answer) => Ok(answer),
                NetlinkPayload::Error(error) => {
                    finish(subject, &error, message.header.flags)?;
                    Err(subject.not_understood("acknowledged without an answer"))
                }
                other => Err(subject.not_understood(format!("unexpected {other:?}"))),
            };
        }
    }

    /// Sends a request for all objects of a kind.
    pub(super) fn dump(
        &mut self,
        subject: &Subject,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..DUMP_ATTEMPTS {
            self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            if let Some(answers) = self.collect_dump(subject)? {
                return Ok(answers);
            }
        }
        Err(subject.not_understood(format!("changed during each of {DUMP_ATTEMPTS} readings")))
    }

    /// `None` when the table changed while the kernel was reading it out.
    fn collect_dump(&mut self, subject: &Subject) -> Result<Option<Vec<RouteNetlinkMessage>>> {
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            for message in self.receive(subject)? {
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(answers)),
                    NetlinkPayload::Error(error) => {
                        finish(subject, &error, message.header.flags)?;
                        return Err(subject.not_understood("acknowledged instead of listed"));
                    }
                    other => {
                        return Err(subject.not_understood(format!("unexpected {other:?}")));
                    }
                }
            }
        }
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        retry_interrupted(|| self.socket.send(&bytes, 0))
            .map_err(|source| Error::Socket { action: "send to the kernel with", source })?;
        Ok(())
    }

    /// One datagram's messages, those that answer the latest request.
    fn receive(&mut self, subject: &Subject) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        let bytes = receive_datagram(&self.socket, &mut self.buffer)
            .map_err(|source| Error::Socket { action: "receive from", source })?;
        let mut messages =
            parse_datagram(bytes).map_err(|reason| subject.not_understood(reason))?;
        // An earlier request that failed half-way may have left answers behind.
        messages.retain(|message| message.header.sequence_number == self.sequence);
        Ok(messages)
    }
}

/// Reads one datagram into `buffer`.
///
/// # Errors
///
/// Those of recv(2), and `InvalidData` for a datagram longer than the buffer.
pub(super) fn receive_datagram<'a>(
    socket: &Socket,
    buffer: &'a mut Vec<u8>,
) -> io::Result<&'a [u8]> {
    buffer.clear();
    buffer.reserve(BUFFER_SIZE);
    let length = retry_interrupted(|| socket.recv(buffer, libc::MSG_TRUNC))?;
    if length > buffer.len() {
        let reason = format!("a netlink datagram of {length} bytes exceeds the buffer");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(buffer)
}

/// The messages of one datagram, or what was wrong with it.
pub(super) fn parse_datagram(
    mut bytes: &[u8],
) -> std::result::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, String> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes)
            .map_err(|error| error.to_string())?;
        // `deserialize` has checked that the length covers the header and fits the datagram.
        let aligned = (message.header.length as usize).next_multiple_of(4).max(HEADER_SIZE);
        bytes = bytes.get(aligned..).unwrap_or_default();
        messages.push(message);
    }
    Ok(messages)
}

/// An acknowledgement as a result.
fn finish(subject: &Subject, error: &netlink_packet_core::ErrorMessage, flags: u16) -> Result<()> {
    match error.code {
        None => Ok(()),
        Some(code) => Err(Error::Refused {
            request: subject.request,
            object: subject.object.clone(),
            explanation: explanation(&error.header, flags),
            source: io::Error::from_raw_os_error(code.get().wrapping_neg()),
        }),
    }
}

fn explanation(echo: &[u8], flags: u16) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    NlasIterator::new(echo.get(HEADER_SIZE..)?)
        .map_while(std::result::Result::ok)
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
        .map(|attribute| {
            String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned()
        })
}

fn retry_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

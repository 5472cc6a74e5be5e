//! Messages and attributes of netlink (`linux/netlink.h`), in this machine's byte order.

use rustix::io::Errno;

use super::uapi::nlm;

const HEADER: usize = 16;
const GENL_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;
/// A type without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const TYPE_MASK: u16 = 0x3fff;

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// The header of a message (`struct nlmsghdr`), but for its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Whose message it is: a family, or a type of netlink's own.
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) port: u32,
}

/// A message as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) header: Header,
    /// What follows the header.
    pub(super) payload: &'a [u8],
    /// All of it.
    pub(super) bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// The messages of a datagram, up to the first that is not whole (`netlink_rcv_skb()`,
    /// `net/netlink/af_netlink.c`).
    pub(super) fn all(mut datagram: &'a [u8]) -> impl Iterator<Item = Self> {
        std::iter::from_fn(move || {
            let length = u32::from_ne_bytes(number(datagram, 0)?) as usize;
            let bytes = datagram.get(..length).filter(|bytes| bytes.len() >= HEADER)?;
            datagram = datagram.get(aligned(length)..).unwrap_or_default();
            let header = Header {
                kind: u16::from_ne_bytes(number(bytes, 4)?),
                flags: u16::from_ne_bytes(number(bytes, 6)?),
                sequence: u32::from_ne_bytes(number(bytes, 8)?),
                port: u32::from_ne_bytes(number(bytes, 12)?),
            };
            Some(Self { header, payload: &bytes[HEADER..], bytes })
        })
    }

    /// The command of a message of generic netlink and its attributes.
    pub(super) fn command(&self) -> Option<(u8, &'a [u8])> {
        Some((*self.payload.first()?, self.payload.get(GENL_HEADER..)?))
    }
}

/// Attributes of one level by type, of each the last one. Types that no caller knows are left out,
/// as the kernel leaves them out.
pub(super) struct Attributes<'a>([Option<&'a [u8]>; 16]);

impl<'a> Attributes<'a> {
    /// Reads up to the first that is not whole (`__nla_parse()`, `lib/nlattr.c`).
    pub(super) fn new(mut bytes: &'a [u8]) -> Self {
        let mut found = [None; 16];
        while let (Some(length), Some(kind)) = (number(bytes, 0), number(bytes, 2)) {
            let length = usize::from(u16::from_ne_bytes(length));
            let Some(value) = bytes.get(ATTRIBUTE_HEADER..length) else { break };
            let kind = u16::from_ne_bytes(kind) & TYPE_MASK;
            if let Some(place) = found.get_mut(usize::from(kind)) {
                *place = Some(value);
            }
            bytes = bytes.get(aligned(length)..).unwrap_or_default();
        }
        Self(found)
    }

    /// The value of that type, if there is one.
    pub(super) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        *self.0.get(usize::from(kind))?
    }

    /// The attributes in the value of that type.
    pub(super) fn nested(&self, kind: u16) -> Option<Self> {
        self.get(kind).map(Self::new)
    }

    /// The first bytes of a value.
    ///
    /// # Errors
    /// `ERANGE` when it has fewer.
    fn sized<const N: usize>(&self, kind: u16) -> Result<Option<[u8; N]>, Errno> {
        self.get(kind).map(|value| number(value, 0).ok_or(Errno::RANGE)).transpose()
    }

    /// A value of one byte; `ERANGE` when it is shorter, likewise the others.
    pub(super) fn u8(&self, kind: u16) -> Result<Option<u8>, Errno> {
        Ok(self.sized(kind)?.map(u8::from_ne_bytes))
    }

    pub(super) fn u16(&self, kind: u16) -> Result<Option<u16>, Errno> {
        Ok(self.sized(kind)?.map(u16::from_ne_bytes))
    }

    /// Of two bytes in network order.
    pub(super) fn be16(&self, kind: u16) -> Result<Option<u16>, Errno> {
        Ok(self.sized(kind)?.map(u16::from_be_bytes))
    }

    pub(super) fn u32(&self, kind: u16) -> Result<Option<u32>, Errno> {
        Ok(self.sized(kind)?.map(u32::from_ne_bytes))
    }

    /// Text up to its NUL, if it has one, of at most `max` bytes.
    ///
    /// # Errors
    /// `ERANGE` when it is longer, `EINVAL` when it is not UTF-8.
    pub(super) fn text(&self, kind: u16, max: usize) -> Result<Option<&'a str>, Errno> {
        let Some(value) = self.get(kind) else { return Ok(None) };
        let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
        if end > max {
            return Err(Errno::RANGE);
        }
        std::str::from_utf8(&value[..end]).map(Some).map_err(|_| Errno::INVAL)
    }
}

/// Messages being written, one after the other.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// What has been written.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn append(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    /// A message; `payload` writes what follows its header.
    pub(super) fn message(&mut self, header: Header, payload: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; 4]);
        self.0.extend(header.kind.to_ne_bytes());
        self.0.extend(header.flags.to_ne_bytes());
        self.0.extend(header.sequence.to_ne_bytes());
        self.0.extend(header.port.to_ne_bytes());
        payload(self);
        let length = (self.0.len() - start) as u32;
        self.0[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    /// A message of generic netlink.
    pub(super) fn command(
        &mut self,
        header: Header,
        (command, version): (u8, u8),
        attributes: impl FnOnce(&mut Self),
    ) {
        self.message(header, |writer| {
            writer.bytes(&[command, version, 0, 0]);
            attributes(writer);
        });
    }

    /// What answers `request`: `error`, or 0, which is no error (`netlink_ack()`).
    pub(super) fn acknowledgment(&mut self, request: &Message<'_>, error: Option<Errno>) {
        let header = Header { kind: super::uapi::NLMSG_ERROR, flags: 0, ..request.header };
        self.message(header, |writer| {
            let number = error.map_or(0, |error| -error.raw_os_error());
            writer.bytes(&number.to_ne_bytes());
            // Without an error only the header comes back.
            let back = if error.is_some() { request.bytes } else { &request.bytes[..HEADER] };
            writer.bytes(back);
        });
    }

    /// The end of a dump.
    pub(super) fn done(&mut self, request: &Header) {
        let header = Header { kind: super::uapi::NLMSG_DONE, flags: nlm::MULTI, ..*request };
        self.message(header, |writer| writer.bytes(&0i32.to_ne_bytes()));
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn pad(&mut self) {
        self.0.resize(aligned(self.0.len()), 0);
    }

    /// An attribute; a value is at most some 65,000 bytes long.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.0.extend(((ATTRIBUTE_HEADER + value.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad();
    }

    pub(super) fn u8(&mut self, kind: u16, value: u8) {
        self.attribute(kind, &[value]);
    }

    pub(super) fn u16(&mut self, kind: u16, value: u16) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// In network order.
    pub(super) fn be16(&mut self, kind: u16, value: u16) {
        self.attribute(kind, &value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    pub(super) fn u64(&mut self, kind: u16, value: u64) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// Text with its NUL.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat());
    }

    /// An attribute of attributes.
    pub(super) fn nested(&mut self, kind: u16, attributes: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        attributes(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

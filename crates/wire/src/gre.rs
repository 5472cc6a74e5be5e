//! GRE (RFC 2784).

/// Length of the header without its checksum, in bytes.
pub const HEADER_LEN: usize = 4;
/// Length of the checksum and what is reserved behind it, in bytes.
pub const CHECKSUM_LEN: usize = 4;
/// The bit of the first word that says that there is a checksum. Any other bit means something
/// that is not in RFC 2784.
pub const CHECKSUM: u16 = 0x8000;

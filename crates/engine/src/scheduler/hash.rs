//! What `dh`, `sh` and `mh` hash.

use seawall_fastpath::Addr;

/// Linux, `include/linux/hash.h`, `GOLDEN_RATIO_32`.
const GOLDEN_RATIO: u32 = 0x61c8_8647;

/// An address as one word: an IPv6 address's four are added without carry.
pub(super) const fn fold(address: Addr) -> u32 {
    match address.as_v4() {
        Some(v4) => v4,
        None => {
            let both = address.0[0] ^ address.0[1];
            (both >> 32) as u32 ^ both as u32
        }
    }
}

/// The upper eight bits of the product (Linux, `include/linux/hash.h`, `hash_32`).
pub(super) const fn bucket(value: u32) -> u8 {
    (value.wrapping_mul(GOLDEN_RATIO) >> 24) as u8
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::fold;

    #[test]
    fn addresses_are_folded_by_word() {
        let fold = |text: &str| fold(text.parse::<IpAddr>().unwrap().into());
        assert_eq!(fold("10.1.2.3"), 0x0a01_0203);
        assert_eq!(fold("2001:db8::1:0:2"), 0x2001_0db8 ^ 1 ^ 2);
        assert_eq!(fold("1:2:3:4:5:6:7:8"), 0x0001_0002 ^ 0x0003_0004 ^ 0x0005_0006 ^ 0x0007_0008);
    }
}

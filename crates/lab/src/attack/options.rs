//! Layouts of TCP options that no honest client sends, and what a SYN with them must come to.

/// What the parser makes of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It skips what it does not understand; the SYN is answered.
    Answered,
    /// A length contradicts the header.
    Malformed,
}

use Fate::{Answered, Malformed};

const EOL: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
const MD5: u8 = 19;
const AUTHENTICATION: u8 = 29;
const MPTCP: u8 = 30;
const FAST_OPEN: u8 = 34;
const EXPERIMENT: u8 = 254;

/// Every layout. Lengths 0 and 1 would make a careless parser stand still or step back (RFC 9293,
/// section 3.1); a known option of a wrong length is skipped, as Linux does.
pub(super) fn layouts() -> Vec<(Fate, Vec<u8>)> {
    let mut all = Vec::new();
    let kinds = [MSS, WINDOW_SCALE, SACK_PERMITTED, TIMESTAMPS, EXPERIMENT];
    for kind in kinds {
        all.push((Malformed, vec![kind, 0, 0, 0]));
        all.push((Malformed, vec![kind, 1, 0, 0]));
        all.push((Malformed, vec![kind, 5, 0, 0]));
    }
    // The last byte of the header is a kind whose length would lie beyond.
    all.push((Malformed, vec![NOP, NOP, NOP, MSS]));
    all.push((Malformed, vec![NOP, NOP, MSS, 4]));
    all.push((Malformed, [vec![MSS, 4, 5, 0xb4], vec![TIMESTAMPS, 10, 0, 0]].concat()));
    all.push((Malformed, vec![EXPERIMENT, 255, 0, 0]));
    all.push((Malformed, [vec![NOP; 38], vec![MSS, 4]].concat()));
    for (kind, lengths) in [
        (MSS, [2, 3, 5]),
        (WINDOW_SCALE, [2, 4, 5]),
        (SACK_PERMITTED, [3, 4, 10]),
        (TIMESTAMPS, [2, 9, 11]),
    ] {
        all.extend(lengths.map(|len| (Answered, option(kind, len))));
    }
    all.push((Answered, [vec![MSS, 4, 5, 0xb4, EOL], vec![TIMESTAMPS, 0, 255]].concat()));
    all.push((Answered, vec![EOL; 40]));
    all.push((Answered, vec![NOP; 40]));
    for (kind, len) in
        [(FAST_OPEN, 2), (FAST_OPEN, 18), (MPTCP, 12), (AUTHENTICATION, 16), (MD5, 18), (SACK, 34)]
    {
        all.push((Answered, option(kind, len)));
    }
    all.push((Answered, option(EXPERIMENT, 40)));
    // What a real server would take for the client's address (TOA).
    all.push((Answered, vec![EXPERIMENT, 8, 0, 80, 10, 0, 0, 1]));
    all.push((Answered, option(MSS, 4).repeat(10)));
    all.push((Answered, option(TIMESTAMPS, 10).repeat(4)));
    all.push((Answered, option(SACK_PERMITTED, 2).repeat(20)));
    all.push((Answered, option(WINDOW_SCALE, 3).repeat(13)));
    all.push((Answered, vec![MSS, 4, 0xff, 0xff, WINDOW_SCALE, 3, 255, NOP]));
    all
}

/// An option of that kind and length, filled with zeros.
fn option(kind: u8, len: u8) -> Vec<u8> {
    let mut bytes = vec![0; usize::from(len)];
    bytes[..2].copy_from_slice(&[kind, len]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::layouts;
    use crate::flood_layout::TEMPLATES;

    #[test]
    fn they_fit_a_header_and_a_flood() {
        let all = layouts();
        assert!(all.iter().all(|(_, options)| options.len() <= 40));
        assert!(all.len() <= TEMPLATES as usize, "{}", all.len());
    }
}

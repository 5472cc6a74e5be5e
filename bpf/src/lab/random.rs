//! Random numbers that a seed repeats.

/// Splitmix64 (Steele, Lea and Flood, 2014).
#[inline(always)]
pub(crate) fn step(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// A number below `count`, or 0, from a random word.
#[inline(always)]
pub(crate) const fn below(random: u32, count: u32) -> u32 {
    (random as u64 * count as u64 >> 32) as u32
}

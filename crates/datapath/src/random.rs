//! Random bytes, from the kernel's generator: keys and seeds come from here and nowhere else.

use crate::Error;

/// Fills `bytes`.
///
/// # Errors
///
/// [`Error::Random`] when getrandom(2) fails, which a kernel that has booted does not let happen.
pub fn fill(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes).map_err(Error::Random)
}

/// As many bytes as asked for.
///
/// # Errors
///
/// As [`fill`].
pub fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_draws_differ() {
        assert_ne!(super::bytes::<32>().unwrap(), super::bytes::<32>().unwrap());
    }
}

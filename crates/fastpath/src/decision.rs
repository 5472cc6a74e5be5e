//! A verdict on its way to the end of the packet path.
//!
//! The same as [`Verdict`], but with every field always set. Where paths that set a value meet
//! paths that do not, LLVM may save a register that was never written, and the kernel's
//! verifier refuses to see it read. That is why, in this crate, values that many paths lead to
//! are flat and have defaults.

use crate::{Action, Reason, Verdict};

/// What becomes of the frame, and why.
#[derive(Clone, Copy)]
pub(crate) struct Decision {
    fate: Fate,
    interface: u32,
    pub(crate) reason: Reason,
}

#[derive(Clone, Copy)]
enum Fate {
    Pass,
    Drop,
    Send,
    Punt,
    Detour,
}

impl Decision {
    #[inline(always)]
    pub(crate) const fn pass(reason: Reason) -> Self {
        Self { fate: Fate::Pass, interface: 0, reason }
    }

    #[inline(always)]
    pub(crate) const fn drop(reason: Reason) -> Self {
        Self { fate: Fate::Drop, interface: 0, reason }
    }

    #[inline(always)]
    pub(crate) const fn send(interface: u32, reason: Reason) -> Self {
        Self { fate: Fate::Send, interface, reason }
    }

    #[inline(always)]
    pub(crate) const fn punt(reason: Reason) -> Self {
        Self { fate: Fate::Punt, interface: 0, reason }
    }

    /// [`crate::detour`] decides.
    #[inline(always)]
    pub(crate) const fn detour() -> Self {
        Self { fate: Fate::Detour, interface: 0, reason: Reason::NotSetUp }
    }

    /// The verdict, unless [`crate::detour`] is to give it.
    #[inline(always)]
    pub(crate) const fn verdict(self) -> Option<Verdict> {
        let action = match self.fate {
            Fate::Pass => Action::Pass,
            Fate::Drop => Action::Drop,
            Fate::Send => Action::Send { interface: self.interface },
            Fate::Punt => Action::Punt,
            Fate::Detour => return None,
        };
        Some(Verdict { action, reason: self.reason })
    }
}

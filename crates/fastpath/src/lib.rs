//! Seawall: fastpath.

//! Seawall: wire.

//! Seawall: engine.

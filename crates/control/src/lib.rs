//! Seawall: control.

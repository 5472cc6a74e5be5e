//! Seawall: lab.

//! Seawall: datapath.

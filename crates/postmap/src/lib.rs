//! postmap

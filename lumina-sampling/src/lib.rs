//! lumina-sampling

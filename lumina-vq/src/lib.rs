//! lumina-vq

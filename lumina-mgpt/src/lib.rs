//! lumina-mgpt

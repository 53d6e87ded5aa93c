//! Ctrl-C while a file is written: the work ends by itself, so that nothing of it is left.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};

/// Whether the program has been asked to end: by Ctrl-C, or by SIGTERM. Asked again, it ends at once.
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on the program is not ended by the first signal, but only told of it.
    pub(crate) fn new() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first one sees the flag as it was before the signal.
            register_conditional_shutdown(signal, 128 + signal, asked.clone())?;
            register(signal, asked.clone())?;
        }
        Ok(Self(asked))
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

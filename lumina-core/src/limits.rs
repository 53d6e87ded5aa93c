//! What one input may take.

/// The most that one input may take. Beyond a limit there is an error, before the memory is taken.
///
/// The defaults are far above what published models, photographs and conversations need, and bound what a file or a
/// request from elsewhere can cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a document: `config.json`, `tokenizer.json`, `vqgan.yaml`, the index of a checkpoint.
    pub document_bytes: u64,
    /// Bytes of memory that a JSON text takes once it is parsed: a document, or the header of a safetensors file.
    pub json_bytes: u64,
    /// Bytes of an image file.
    pub image_file_bytes: u64,
    /// Pixels of an image file.
    pub image_pixels: u64,
    /// Bytes that decoding an image file takes, besides the file itself.
    pub image_bytes: u64,
    /// Bytes that decoding VQ codes into an image takes, or encoding an image.
    pub vq_decode_bytes: u64,
    /// Bytes of the keys and values of one sequence, with those of its guidance.
    pub kv_cache_bytes: u64,
    /// Bytes of the text of one message.
    pub message_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            // The largest published `tokenizer.json` has 35 MB.
            document_bytes: 64 * MIB,
            // That one takes half of it.
            json_bytes: 384 * MIB,
            image_file_bytes: 256 * MIB,
            // Above it Pillow refuses a file as a decompression bomb.
            image_pixels: 178_956_970,
            image_bytes: 768 * MIB,
            vq_decode_bytes: 8192 * MIB,
            kv_cache_bytes: u64::MAX,
            message_bytes: MIB,
        }
    }
}

impl Limits {
    /// Refuses image files of more than `max_pixels`. What decoding them takes is bounded by
    /// [`Limits::image_bytes`] as well.
    pub fn max_pixels(mut self, max_pixels: u64) -> Self {
        self.image_pixels = max_pixels;
        self
    }
}

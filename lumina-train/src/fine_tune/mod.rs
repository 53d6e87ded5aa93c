//! FP-SFT and Omni-SFT: training of the transformer.

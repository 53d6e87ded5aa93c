//! The table from tokens to hidden states.

use super::hidden::Hidden;
use super::weight::Weight;
use crate::Compute;

/// Rows of a table `[entries, width]`, by index. Made by [`Loader::embedding`](crate::Loader::embedding).
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
pub struct Embedding {
    weight: Weight,
    entries: usize,
}

impl Embedding {
    pub(crate) fn new(weight: Weight, entries: usize) -> Self {
        Self { weight, entries }
    }

    /// Number of entries.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// The rows of the tokens of a pass on a GPU, `[n, width]`. An index that is no entry reads the last one: who makes
    /// the pass has checked them.
    ///
    /// # Panics
    /// If the table is not on the GPU.
    #[cfg(feature = "cube")]
    pub fn forward_on_gpu(&self, pass: &super::GpuPass) -> Hidden {
        let Weight::Gpu(table) = &self.weight else {
            unreachable!("with keys and values on a GPU weights are there, which `Compute` makes sure of")
        };
        pass.embed(&table.matrix)
    }

    /// The rows of `indices`: `[indices.len(), width]`. `None` where an index is no entry.
    pub fn forward(&self, indices: &[u32], compute: &Compute) -> Option<Hidden> {
        if indices.iter().any(|&index| index as usize >= self.entries) {
            return None;
        }
        let rows = match &self.weight {
            #[cfg(feature = "burn")]
            Weight::Burn(table) => {
                super::burn::gather(table.parameter.val(), indices)?.cast(compute.options().1).into()
            }
            Weight::Host(table) => Hidden::new(compute, indices.len(), table.columns(), |rows| {
                for (row, &index) in rows.chunks_exact_mut(table.columns().max(1)).zip(indices) {
                    table.read_row(index as usize, row);
                }
            }),
            #[cfg(feature = "cube")]
            Weight::Gpu(table) => {
                let gpu = compute.gpu()?;
                let values = lumina_cube::embedding::embedding(gpu, &table.matrix, &gpu.upload(indices));
                super::cube::GpuRows { gpu: gpu.clone(), values, width: table.matrix.columns() }.into()
            }
        };
        Some(rows)
    }
}

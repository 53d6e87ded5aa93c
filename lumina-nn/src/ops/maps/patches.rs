//! Feature maps in patches that do not see each other, and back.

use super::{Maps, MapsData};

impl Maps {
    /// `[batch, channels, height, width]` → `[batch · rows · columns, channels, side, side]`: squares of `side` ×
    /// `side` positions as images of their own, those of a row from left to right, the rows from top to bottom. What
    /// pads an image then pads each square, so that none depends on another.
    ///
    /// # Panics
    /// If height or width is no multiple of the side.
    #[must_use]
    pub fn into_patches(self, side: usize) -> Self {
        let [_, _, height, width] = self.dims();
        let fits = side > 0 && height.is_multiple_of(side) && width.is_multiple_of(side);
        assert!(fits, "{width}x{height} positions are no squares of {side}");
        if (height, width) == (side, side) {
            return self;
        }
        match self.0 {
            MapsData::Host(x) => x.patches(side).into(),
            #[cfg(feature = "cube")]
            MapsData::Gpu(x) => x.with(x.maps.to_patches(&x.gpu, side)),
            #[cfg(feature = "burn")]
            MapsData::Burn(x) => crate::ops::burn::patches(x, side).into(),
        }
    }

    /// `[batch · rows · columns, channels, 1, 1]` → `[batch, channels, rows, columns]`: what each square of
    /// [`Maps::into_patches`] has become, where the square was.
    ///
    /// # Panics
    /// If there are more or fewer, or they have more than one position.
    #[must_use]
    pub fn from_patches(self, [batch, rows, columns]: [usize; 3]) -> Self {
        let [n, _, height, width] = self.dims();
        let fits = n == batch * rows * columns && (height, width) == (1, 1);
        assert!(fits, "{n} patches of {width}x{height} for {batch} grids of {rows}x{columns}");
        match self.0 {
            MapsData::Host(x) => x.grids([batch, rows, columns]).into(),
            #[cfg(feature = "cube")]
            MapsData::Gpu(x) => x.with(x.maps.clone().into_grids([batch, rows, columns])),
            #[cfg(feature = "burn")]
            MapsData::Burn(x) => crate::ops::burn::grids(x, [batch, rows, columns]).into(),
        }
    }
}

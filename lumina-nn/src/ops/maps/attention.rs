//! Attention of one head over all positions of feature maps.

use super::{Maps, MapsData};

/// `softmax(q · kᵀ / √channels) · v` over the positions of each image, all `[batch, channels, height, width]`.
#[must_use]
pub fn maps_attention(q: Maps, k: Maps, v: Maps) -> Maps {
    match (q.0, k.0, v.0) {
        (MapsData::Host(q), MapsData::Host(k), MapsData::Host(v)) => q.attend(k, v).into(),
        #[cfg(feature = "cube")]
        (MapsData::Gpu(q), MapsData::Gpu(k), MapsData::Gpu(v)) => {
            q.with(lumina_cube::conv::attention(&q.gpu, &q.maps, &k.maps, &v.maps))
        }
        #[cfg(feature = "burn")]
        (MapsData::Burn(q), MapsData::Burn(k), MapsData::Burn(v)) => crate::ops::burn::maps_attention(q, k, v).into(),
        _ => unreachable!("{}", crate::ops::ONE_PLACE),
    }
}

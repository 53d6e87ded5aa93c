//! Attention of one head over all positions of feature maps.

use burn::tensor::activation;

use super::{Maps, MapsData};

/// `softmax(q · kᵀ / √channels) · v` over the positions of each image, all `[batch, channels, height, width]`.
#[must_use]
pub fn maps_attention(q: Maps, k: Maps, v: Maps) -> Maps {
    match (q.0, k.0, v.0) {
        #[cfg(feature = "cube")]
        (MapsData::Gpu(q), MapsData::Gpu(k), MapsData::Gpu(v)) => {
            q.with(lumina_cube::conv::attention(&q.gpu, &q.maps, &k.maps, &v.maps))
        }
        (MapsData::Burn(q), MapsData::Burn(k), MapsData::Burn(v)) => {
            let [batch, channels, height, width] = q.dims();
            let [q, k, v] = [q, k, v].map(|x| x.reshape([batch, channels, height * width]));
            let scores = q.swap_dims(1, 2).matmul(k) * (channels as f64).powf(-0.5);
            let attended = v.matmul(activation::softmax(scores, 2).swap_dims(1, 2));
            attended.reshape([batch, channels, height, width]).into()
        }
        #[cfg(feature = "cube")]
        _ => unreachable!("{}", super::ONE_PLACE),
    }
}

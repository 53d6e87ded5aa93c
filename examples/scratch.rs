#![allow(missing_docs, clippy::all, clippy::print_stdout)]
use lumina_scenes::{Scenes, Split};
use lumina_vq::{Bands, Compute, ImageTokenizer};
fn main() {
    let folder = std::env::args().nth(1).unwrap();
    let t = ImageTokenizer::open(&folder, &Compute::cpu()).unwrap();
    let scenes = Scenes::new(5, Split::Test, 96).unwrap();
    let mut sheet = image::RgbImage::from_pixel(132 * 8, 132 * 6, image::Rgb([255, 0, 255]));
    let mut mse_all = 0.0;
    for i in 0..24u64 {
        let s = scenes.scene(i);
        let p = if i % 8 == 6 {
            s.depth()
        } else if i % 8 == 7 {
            s.segmentation()
        } else {
            s.picture()
        };
        let q = t.decode(&t.encode(&p).unwrap(), Bands::Whole).unwrap();
        let psnr = lumina_scenes::judge::psnr(&p, &q).unwrap();
        mse_all += psnr;
        let (x, y) = ((i % 4) as i64 * 264, (i / 4) as i64 * 132);
        image::imageops::overlay(&mut sheet, &p, x, y);
        image::imageops::overlay(&mut sheet, &q, x + 132, y);
        print!("{psnr:.1} ");
    }
    println!("mean {}", mse_all / 24.0);
    sheet.save("/tmp/sc/sheet.png").unwrap();
}

//! Pixels, and letters made of them.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};
use font8x8::{BASIC_FONTS, UnicodeFonts};

/// Red, green, blue.
pub type Colour = [u8; 3];

/// Pixels of a letter, both ways.
const LETTER: usize = 8;

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    pub left: usize,
    pub top: usize,
    pub width: usize,
    pub height: usize,
}

/// A picture. What is drawn outside of it is not seen.
pub struct Canvas {
    width: usize,
    pixels: Vec<Colour>,
}

impl Canvas {
    pub fn new(width: usize, height: usize, paper: Colour) -> Self {
        Self { width, pixels: vec![paper; width * height] }
    }

    pub fn set(&mut self, x: usize, y: usize, colour: Colour) {
        if x < self.width
            && let Some(pixel) = self.pixels.get_mut(y * self.width + x)
        {
            *pixel = colour;
        }
    }

    pub fn line_right(&mut self, x: usize, y: usize, length: usize, colour: Colour) {
        (x..x + length).for_each(|x| self.set(x, y, colour));
    }

    pub fn line_down(&mut self, x: usize, y: usize, length: usize, colour: Colour) {
        (y..y + length).for_each(|y| self.set(x, y, colour));
    }

    /// Letters from (x, y) to the right and down. Only ASCII is seen.
    pub fn text(&mut self, x: usize, y: usize, text: &str, colour: Colour) {
        for (i, c) in text.chars().enumerate() {
            let rows = BASIC_FONTS.get(c).unwrap_or_default();
            for (row, bits) in rows.iter().enumerate() {
                for column in (0..LETTER).filter(|column| bits >> column & 1 == 1) {
                    self.set(x + i * LETTER + column, y + row, colour);
                }
            }
        }
    }

    /// Letters that end at x, their middle at y.
    pub fn text_before(&mut self, x: usize, y: usize, text: &str, colour: Colour) {
        let left = x.saturating_sub(text.chars().count() * LETTER);
        self.text(left, y.saturating_sub(LETTER / 2), text, colour);
    }

    /// Letters whose middle is at x, from y down.
    pub fn text_centred(&mut self, x: usize, y: usize, text: &str, colour: Colour) {
        let left = x.saturating_sub(text.chars().count() * LETTER / 2);
        self.text(left, y, text, colour);
    }

    /// Writes a PNG, and makes its folder where there is none.
    pub fn write(&self, path: &Path) -> Result<()> {
        let name = || path.display().to_string();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(name)?;
        }
        let file = BufWriter::new(File::create(path).with_context(name)?);
        let (width, height) = (self.width as u32, (self.pixels.len() / self.width) as u32);
        let mut encoder = png::Encoder::new(file, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_compression(png::Compression::High);
        let mut writer = encoder.write_header().with_context(name)?;
        writer.write_image_data(self.pixels.as_flattened()).with_context(name)?;
        writer.finish().with_context(name)
    }

    #[cfg(test)]
    pub fn get(&self, x: usize, y: usize) -> Colour {
        self.pixels[y * self.width + x]
    }
}

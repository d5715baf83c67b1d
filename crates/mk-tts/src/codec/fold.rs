//! Linear algebra on weights, done once when a graph is written. Products are taken in f64 and rounded once.

use rayon::prelude::*;

/// Multiplies row `i` of a matrix by `factors[i]`; rows are of equal length.
pub fn scale_rows(matrix: &mut [f32], factors: &[f64]) {
    let width = matrix.len() / factors.len();
    for (row, factor) in matrix.chunks_exact_mut(width).zip(factors) {
        row.iter_mut().for_each(|value| *value = (f64::from(*value) * factor) as f32);
    }
}

/// Multiplies column `j` of a matrix by `factors[j]`.
pub fn scale_columns(matrix: &mut [f32], factors: &[f64]) {
    for row in matrix.chunks_exact_mut(factors.len()) {
        for (value, factor) in row.iter_mut().zip(factors) {
            *value = (f64::from(*value) * factor) as f32;
        }
    }
}

/// The transpose of a matrix with `columns` columns.
pub fn transpose<T: Copy + Send + Sync>(matrix: &[T], columns: usize) -> Vec<T> {
    let rows = matrix.len() / columns;
    let column = |j: usize| (0..rows).map(move |i| matrix[i * columns + j]);
    (0..columns).into_par_iter().flat_map_iter(column).collect()
}

/// The product of an [m, n] and an [n, p] matrix.
pub fn product(a: &[f64], b: &[f64], n: usize, p: usize) -> Vec<f64> {
    let row = |a_row: &[f64]| {
        let mut sums = vec![0.0; p];
        for (factor, b_row) in a_row.iter().zip(b.chunks_exact(p)) {
            sums.iter_mut().zip(b_row).for_each(|(sum, value)| *sum += factor * value);
        }
        sums
    };
    a.par_chunks_exact(n).flat_map_iter(row).collect()
}

/// The numbers as f64.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// The numbers as f32, each rounded once.
pub fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_transposes() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
        assert_eq!(product(&a, &b, 3, 2), [4.0, 5.0, 10.0, 11.0]);
        assert_eq!(transpose(&a, 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }

    #[test]
    fn rows_and_columns() {
        let mut matrix = [1.0, 2.0, 3.0, 4.0];
        scale_rows(&mut matrix, &[1.0, 10.0]);
        scale_columns(&mut matrix, &[1.0, 0.5]);
        assert_eq!(matrix, [1.0, 1.0, 30.0, 20.0]);
    }
}

use std::collections::HashMap;

struct Grid<T> {
    cells: Vec<T>,
}

trait Score {
    fn score(&self, n: u64) -> u64;
}

impl<T: Copy + Into<u64>> Score for Grid<T> {
    fn score(&self, n: u64) -> u64 {
        self.cells.iter().map(|&c| c.into()).filter(|c| c % 2 == n % 2).fold(n, |a, b| a ^ b.rotate_left(3))
    }
}

#[inline(never)]
fn count(words: &[String]) -> u64 {
    let mut m: HashMap<&str, u64> = HashMap::new();
    for w in words {
        *m.entry(w.as_str()).or_insert(0) += w.len() as u64;
    }
    m.values().sum()
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let g = Grid { cells: vec![1u32, 2, 3] };
    let h = Grid { cells: vec![1u8, 9] };
    println!("{}", count(&words) + g.score(words.len() as u64) + h.score(2));
}

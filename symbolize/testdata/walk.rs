// SPDX-License-Identifier: Apache-2.0

use std::fmt::Display;

mod inner {
    pub struct Tree {
        pub left: Option<Box<Tree>>,
        pub value: u64,
    }

    impl Tree {
        #[inline(never)]
        pub fn sum(&self) -> u64 {
            self.value + self.left.as_ref().map_or(0, |t| t.sum())
        }
    }
}

#[inline(never)]
fn show<T: Display>(value: T) -> String {
    format!("{}", value)
}

fn main() {
    let tree = inner::Tree {
        left: Some(Box::new(inner::Tree { left: None, value: 2 })),
        value: std::env::args().count() as u64,
    };
    println!("{} {}", show(tree.sum()), show("done"));
}

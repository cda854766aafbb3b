//! `sqlx::migrate!` reads the folder when it is compiled; cargo must know that a new file there matters.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}

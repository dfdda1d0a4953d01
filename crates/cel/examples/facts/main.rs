//! Compares the engine with recorded cases: `cargo run --release -p nave-cel --example facts -- FILE.jsonl...`.
//!
//! Prints the share of equal results, errors, costs and estimates. With `--show`, also prints the first differences.

mod eval;
mod policies;
mod rules;
mod share;

use std::io::BufRead as _;

use share::Report;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut report = Report::default();
    for file in std::env::args().skip(1) {
        if file == "--show" {
            report.show = true;
            continue;
        }
        let lines = std::io::BufReader::new(std::fs::File::open(&file)?).lines();
        for line in lines {
            let case: serde_json::Value = serde_json::from_str(&line?)?;
            if case.get("expr").is_some() {
                eval::compare(&case, &mut report);
            } else if case.get("spec").is_some() {
                policies::compare(&case, &mut report);
            } else if case.get("schema").is_some() {
                rules::compare(&case, &mut report);
            } else {
                report.count(
                    "unknown records",
                    &case,
                    &serde_json::json!("a record"),
                    &serde_json::Value::Null,
                );
            }
        }
    }
    report.print();
    Ok(())
}

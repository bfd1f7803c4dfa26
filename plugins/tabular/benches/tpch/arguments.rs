//! What the command line and the environment ask for, including the two jobs that the benchmark gives to itself.

use std::path::PathBuf;

use crate::Result;
use crate::query::Query;

pub(crate) enum Arguments {
    Benchmark(Settings),
    /// The hidden contender: this query, written by hand.
    Handwritten {
        query: Query,
        data_dir: PathBuf,
        output: PathBuf,
    },
    /// Prints the digest of an output, in a process of its own so that the measuring one stays small.
    Digest {
        output: PathBuf,
    },
    /// `cargo test --all-targets` runs benchmarks too, and must not wait for this one.
    NotABenchmark,
}

pub(crate) struct Settings {
    /// The TPC-H scale factor as it was written: it names the data folder.
    pub(crate) scale: String,
    pub(crate) rounds: usize,
    pub(crate) python: PathBuf,
}

impl Arguments {
    pub(crate) fn parse() -> Result<Self> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["handwritten", query, data_dir, output] => {
                Ok(Self::Handwritten { query: query.parse()?, data_dir: data_dir.into(), output: output.into() })
            }
            ["digest", output] => Ok(Self::Digest { output: output.into() }),
            ref words if words.contains(&"--bench") => Settings::parse(words).map(Self::Benchmark),
            _ => Ok(Self::NotABenchmark),
        }
    }
}

impl Settings {
    fn parse(words: &[&str]) -> Result<Self> {
        let mut settings = Self {
            scale: std::env::var("PYPE_BENCH_SCALE").unwrap_or_else(|_| "1".to_owned()),
            rounds: 3,
            python: std::env::var_os("PYPE_BENCH_PYTHON").map_or_else(|| "python3".into(), PathBuf::from),
        };
        let mut words = words.iter().filter(|word| **word != "--bench");
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("`{word}` needs a value"));
            match *word {
                "--scale" => settings.scale = value()?.to_string(),
                "--rounds" => settings.rounds = value()?.parse().map_err(|error| format!("`--rounds`: {error}"))?,
                unknown => {
                    return Err(format!("unknown argument `{unknown}`: `--scale` and `--rounds` are known").into());
                }
            }
        }
        match settings.scale.parse::<f64>() {
            Ok(scale) if scale > 0.0 && settings.rounds > 0 => Ok(settings),
            _ => Err(format!("scale `{}`, rounds `{}`: both must be positive", settings.scale, settings.rounds).into()),
        }
    }
}

//! Which part of the work a process does: from flags, or from what started it.

use std::ffi::OsString;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

/// A process among several that share a work: rank `rank` of `of`, counted from 0.
///
/// Each scheduler tells its processes in variables of its own, so a program that takes its rank from [`RankArgs`] runs
/// under any of them, and without one by two flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    rank: u64,
    of: u64,
}

impl Rank {
    /// All of the work.
    pub const ONLY: Self = Self { rank: 0, of: 1 };

    /// Rank `rank` of `of`.
    ///
    /// # Errors
    /// Where `rank` is not below `of`.
    pub fn new(rank: u64, of: u64) -> Result<Self> {
        ensure!(rank < of, "there is no rank {rank} of {of}; ranks count from 0 and are below their number");
        Ok(Self { rank, of })
    }

    /// Which one it is, from 0.
    pub fn rank(self) -> u64 {
        self.rank
    }

    /// How many there are, at least 1.
    pub fn of(self) -> u64 {
        self.of
    }

    /// Whether the item at `index` is this rank's, where items are dealt out one by one.
    pub fn has(self, index: u64) -> bool {
        index % self.of == self.rank
    }
}

/// The rank of this process.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Rank")]
pub struct RankArgs {
    /// Which part of the work to do, from 0 [default: what mpirun, srun, a Slurm array or a Kubernetes indexed job
    /// says, else all of it]
    #[arg(long, value_name = "R", requires = "ranks")]
    rank: Option<u64>,
    /// How many parts there are [default: as --rank]
    #[arg(long, value_name = "N")]
    ranks: Option<u64>,
}

impl RankArgs {
    /// The rank by the flags, else by the environment, else [`Rank::ONLY`].
    ///
    /// | started by | variables |
    /// | --- | --- |
    /// | Open MPI | `OMPI_COMM_WORLD_RANK`, `OMPI_COMM_WORLD_SIZE` |
    /// | MPICH and others with PMI | `PMI_RANK`, `PMI_SIZE` |
    /// | Slurm's `srun` | `SLURM_PROCID`, `SLURM_NTASKS` |
    /// | a Slurm array | `SLURM_ARRAY_TASK_ID`, `…_MIN`, `…_MAX`, `…_STEP`, `…_COUNT`; with `srun`, tasks of all its jobs |
    /// | a Kubernetes indexed job | `JOB_COMPLETION_INDEX`, and `JOB_COMPLETIONS` or `--ranks` |
    ///
    /// The first that is set counts: `mpirun` in a Slurm job starts more processes than Slurm knows of.
    ///
    /// # Errors
    /// Variables that are no numbers, contradict each other or `--ranks`, or of which one is missing.
    pub fn get(&self) -> Result<Rank> {
        self.resolve(&|name| std::env::var_os(name))
    }

    fn resolve(&self, variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Rank> {
        if let (Some(rank), Some(of)) = (self.rank, self.ranks) {
            return Rank::new(rank, of);
        }
        let Some(found) = Variables(variable).find()? else {
            return match self.ranks {
                None | Some(1) => Ok(Rank::ONLY),
                Some(of) => bail!("`--ranks` is {of}, and nothing says which of them this is; give `--rank`"),
            };
        };
        let of = match (found.of, self.ranks) {
            (Some(of), Some(other)) if of != other => {
                bail!("`--ranks` is {other}, and by {} there are {of}; leave it out, or give `--rank`, too", found.by)
            }
            (Some(of), _) | (None, Some(of)) => of,
            (None, None) => bail!(
                "{} is set, but not how many indexes there are; give the job's `completions` as `--ranks` or as \
                 JOB_COMPLETIONS",
                found.by
            ),
        };
        Rank::new(found.rank, of).with_context(|| format!("{} cannot be used", found.by))
    }
}

/// A rank that the environment states.
struct Found {
    rank: u64,
    /// `None` where the environment states the rank alone.
    of: Option<u64>,
    /// The variables.
    by: &'static str,
}

/// The environment.
struct Variables<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Variables<'_> {
    fn find(&self) -> Result<Option<Found>> {
        Ok(match self.mpi()? {
            Some(found) => Some(found),
            None => match self.slurm()? {
                Some(found) => Some(found),
                None => self.kubernetes()?,
            },
        })
    }

    fn mpi(&self) -> Result<Option<Found>> {
        let open_mpi = self.pair("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")?;
        let pmi = self.pair("PMI_RANK", "PMI_SIZE")?;
        if let (Some((rank, of)), Some((other, of_other))) = (open_mpi, pmi)
            && (rank, of) != (other, of_other)
        {
            bail!(
                "OMPI_COMM_WORLD_RANK says rank {rank} of {of}, and PMI_RANK says {other} of {of_other}; unset those \
                 of the outer `mpirun`, or give `--rank` and `--ranks`"
            );
        }
        let by =
            if open_mpi.is_some() { "OMPI_COMM_WORLD_RANK of OMPI_COMM_WORLD_SIZE" } else { "PMI_RANK of PMI_SIZE" };
        Ok(open_mpi.or(pmi).map(|(rank, of)| Found { rank, of: Some(of), by }))
    }

    fn slurm(&self) -> Result<Option<Found>> {
        // A shell of `salloc` has a number of tasks and is none of them. A script of `sbatch` is task 0, of a number
        // that need not be stated.
        let task = match (self.number("SLURM_PROCID")?, self.number("SLURM_NTASKS")?) {
            (None, _) => None,
            (Some(0), None) => Some((0, 1)),
            (Some(_), None) => bail!("SLURM_PROCID is set without SLURM_NTASKS; give `--rank` and `--ranks`"),
            (Some(task), Some(n_tasks)) => Some((task, n_tasks)),
        };
        let (by, array) = match self.slurm_array()? {
            Some(array) => ("SLURM_ARRAY_TASK_ID, SLURM_PROCID of SLURM_NTASKS", array),
            None => ("SLURM_PROCID of SLURM_NTASKS", (0, 1)),
        };
        let Some((task, n_tasks)) = task.or((array.1 > 1).then_some((0, 1))) else { return Ok(None) };
        // Each element of an array can have several tasks.
        Rank::new(task, n_tasks).with_context(|| format!("{by} cannot be used"))?;
        let rank = array.0.checked_mul(n_tasks).and_then(|before| before.checked_add(task));
        let (Some(rank), Some(of)) = (rank, array.1.checked_mul(n_tasks)) else { bail!("{by} are too large") };
        Ok(Some(Found { rank, of: Some(of), by }))
    }

    /// Which element of an array this is, and of how many.
    fn slurm_array(&self) -> Result<Option<(u64, u64)>> {
        let Some(id) = self.number("SLURM_ARRAY_TASK_ID")? else { return Ok(None) };
        let part = |name: &str| {
            let name = format!("SLURM_ARRAY_TASK_{name}");
            self.number(&name)?
                .with_context(|| format!("SLURM_ARRAY_TASK_ID is set without {name}; give `--rank` and `--ranks`"))
        };
        let (min, max, count) = (part("MIN")?, part("MAX")?, part("COUNT")?);
        let step = self.number("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1);
        let regular = || {
            let steps = max.checked_sub(min)?.checked_div(step)?;
            let element = id.checked_sub(min).filter(|offset| offset % step == 0)? / step;
            (steps.checked_add(1) == Some(count) && element < count).then_some((element, count))
        };
        Ok(Some(regular().with_context(|| {
            format!(
                "SLURM_ARRAY_TASK_ID is {id} in an array of {count} from {min} to {max} in steps of {step}, which is not \
                 their place; use an array without gaps, as `--array=0-7`, or give `--rank` and `--ranks`"
            )
        })?))
    }

    fn kubernetes(&self) -> Result<Option<Found>> {
        let Some(rank) = self.number("JOB_COMPLETION_INDEX")? else { return Ok(None) };
        Ok(Some(Found { rank, of: self.number("JOB_COMPLETIONS")?, by: "JOB_COMPLETION_INDEX" }))
    }

    /// Two variables that are set together.
    fn pair(&self, rank: &str, of: &str) -> Result<Option<(u64, u64)>> {
        match (self.number(rank)?, self.number(of)?) {
            (Some(rank), Some(of)) => Ok(Some((rank, of))),
            (None, None) => Ok(None),
            (Some(_), None) => bail!("{rank} is set without {of}; give `--rank` and `--ranks`"),
            (None, Some(_)) => bail!("{of} is set without {rank}; give `--rank` and `--ranks`"),
        }
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        let Some(text) = (self.0)(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let number = text.to_str().and_then(|text| text.trim().parse().ok());
        let quoted = || lumina_core::quoted(&text.to_string_lossy()).to_string();
        number.map(Some).with_context(|| format!("{name} is {}, expected a whole number", quoted()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank_of(flags: (Option<u64>, Option<u64>), variables: &[(&str, &str)]) -> Result<(u64, u64), String> {
        let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        let args = RankArgs { rank: flags.0, ranks: flags.1 };
        args.resolve(&lookup).map(|rank| (rank.rank(), rank.of())).map_err(|error| format!("{error:#}"))
    }

    const NONE: (Option<u64>, Option<u64>) = (None, None);

    fn array(id: &'static str, [min, max, step, count]: [&'static str; 4]) -> Vec<(&'static str, &'static str)> {
        vec![
            ("SLURM_ARRAY_TASK_ID", id),
            ("SLURM_ARRAY_TASK_MIN", min),
            ("SLURM_ARRAY_TASK_MAX", max),
            ("SLURM_ARRAY_TASK_STEP", step),
            ("SLURM_ARRAY_TASK_COUNT", count),
        ]
    }

    #[test]
    fn flags_count_before_the_environment() {
        assert_eq!(rank_of(NONE, &[]), Ok((0, 1)));
        assert_eq!(rank_of((None, Some(1)), &[]), Ok((0, 1)));
        let slurm = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "1")];
        assert_eq!(rank_of((Some(2), Some(3)), &slurm), Ok((2, 3)));
        assert!(rank_of((Some(3), Some(3)), &[]).unwrap_err().contains("no rank 3 of 3"));
        assert!(rank_of((Some(0), Some(0)), &[]).unwrap_err().contains("no rank 0 of 0"));
        assert!(rank_of((None, Some(4)), &[]).unwrap_err().contains("give `--rank`"));
        let message = rank_of((None, Some(4)), &slurm).unwrap_err();
        assert!(message.contains("`--ranks` is 4") && message.contains("SLURM_NTASKS there are 1"), "{message}");
    }

    #[test]
    fn each_scheduler_is_known() {
        let open_mpi = [("OMPI_COMM_WORLD_RANK", "3"), ("OMPI_COMM_WORLD_SIZE", "4")];
        assert_eq!(rank_of(NONE, &open_mpi), Ok((3, 4)));
        assert_eq!(rank_of((None, Some(4)), &open_mpi), Ok((3, 4)));
        assert_eq!(rank_of(NONE, &[("PMI_RANK", "0"), ("PMI_SIZE", "2")]), Ok((0, 2)));
        assert_eq!(rank_of(NONE, &[("SLURM_PROCID", "1"), ("SLURM_NTASKS", "2")]), Ok((1, 2)));
        // Scripts of `sbatch` without `--ntasks`, and shells of `salloc`.
        assert_eq!(rank_of(NONE, &[("SLURM_PROCID", "0")]), Ok((0, 1)));
        assert_eq!(rank_of(NONE, &[("SLURM_NTASKS", "8")]), Ok((0, 1)));
        let index = ("JOB_COMPLETION_INDEX", "5");
        assert_eq!(rank_of(NONE, &[index, ("JOB_COMPLETIONS", "6")]), Ok((5, 6)));
        assert_eq!(rank_of((None, Some(6)), &[index]), Ok((5, 6)));
        assert_eq!(rank_of((None, Some(6)), &[index, ("JOB_COMPLETIONS", "")]), Ok((5, 6)));
        // `mpirun` in a job of Slurm: its script is one task, or all of them have the variables of the first.
        let slurm = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")];
        assert_eq!(rank_of(NONE, &[open_mpi, slurm].concat()), Ok((3, 4)));
    }

    #[test]
    fn arrays_of_slurm() {
        assert_eq!(rank_of(NONE, &array("0", ["0", "7", "1", "8"])), Ok((0, 8)));
        assert_eq!(rank_of(NONE, &array("8", ["1", "8", "1", "8"])), Ok((7, 8)));
        assert_eq!(rank_of(NONE, &array("9", ["1", "9", "4", "3"])), Ok((2, 3)));
        assert_eq!(rank_of(NONE, &array("8", ["1", "10", "7", "2"])), Ok((1, 2)));
        let with_tasks = |tasks: [&'static str; 2]| {
            let tasks = [("SLURM_PROCID", tasks[0]), ("SLURM_NTASKS", tasks[1])];
            rank_of(NONE, &[array("2", ["0", "3", "1", "4"]), tasks.to_vec()].concat())
        };
        assert_eq!(with_tasks(["1", "3"]), Ok((7, 12)));
        assert!(with_tasks(["3", "3"]).unwrap_err().contains("no rank 3 of 3"));
        // 1, 3, 7: which one 3 is cannot be told.
        for (id, sizes) in [
            ("3", ["1", "7", "1", "3"]),
            ("8", ["0", "7", "1", "8"]),
            ("0", ["1", "8", "1", "8"]),
            ("2", ["1", "9", "4", "3"]),
            ("2", ["3", "1", "1", "3"]),
            ("0", ["0", "7", "0", "8"]),
        ] {
            let message = rank_of(NONE, &array(id, sizes)).unwrap_err();
            assert!(message.contains("without gaps"), "{message}");
        }
        let message = rank_of(NONE, &array("1", ["0", "", "1", "8"])).unwrap_err();
        assert!(message.contains("without SLURM_ARRAY_TASK_MAX"), "{message}");
    }

    #[test]
    fn contradictions_are_errors() {
        for (variables, part) in [
            (&[("OMPI_COMM_WORLD_RANK", "4"), ("OMPI_COMM_WORLD_SIZE", "4")][..], "no rank 4 of 4"),
            (&[("OMPI_COMM_WORLD_RANK", "0")], "without OMPI_COMM_WORLD_SIZE"),
            (&[("PMI_SIZE", "2")], "without PMI_RANK"),
            (&[("PMI_RANK", "-1"), ("PMI_SIZE", "2")], "PMI_RANK is `-1`"),
            (&[("SLURM_PROCID", "1")], "without SLURM_NTASKS"),
            (&[("SLURM_PROCID", "x")], "SLURM_PROCID is `x`"),
            (&[("SLURM_PROCID", "2"), ("SLURM_NTASKS", "2")], "no rank 2 of 2"),
            (&[("JOB_COMPLETION_INDEX", "1")], "`--ranks`"),
            (&[("JOB_COMPLETION_INDEX", "3"), ("JOB_COMPLETIONS", "3")], "no rank 3 of 3"),
            (
                &[("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "2"), ("PMI_RANK", "1"), ("PMI_SIZE", "2")],
                "PMI_RANK says 1 of 2",
            ),
        ] {
            let message = rank_of(NONE, variables).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
        let message = rank_of((None, Some(4)), &[("JOB_COMPLETION_INDEX", "1"), ("JOB_COMPLETIONS", "3")]);
        assert!(message.unwrap_err().contains("there are 3"));
    }

    /// Every item is one rank's, and the shares differ by one at most.
    #[test]
    fn items_are_dealt_out() {
        let ranks: Vec<_> = (0..3).map(|rank| Rank::new(rank, 3).unwrap()).collect();
        for n in 0..20 {
            let shares = ranks.iter().map(|rank| (0..n).filter(|&index| rank.has(index)).count() as u64);
            let shares: Vec<_> = shares.collect();
            assert_eq!(shares.iter().sum::<u64>(), n);
            assert!(shares[0] - shares[2] <= 1, "{shares:?}");
        }
    }
}

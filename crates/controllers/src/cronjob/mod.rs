//! Cron jobs: a job at each of the times of a schedule.

mod due;
mod history;

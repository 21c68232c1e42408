//! Placement over memory banks: tensors that are touched most, for their size, lie where a byte costs least.
//!
//! Buffers are taken in an order, each to the cheapest bank where it has room. Several orders are tried and
//! the best is improved by the seeded local search of [`super::offsets`]; what counts is first that
//! everything has room, then the cost of all bytes read and written in a run.

use ampoule_runtime::artifact::Step;

use super::lifetimes::{buffers, lifetimes};
use super::offsets::{assign, lowest_free};
use super::target::{BankError, Target};
use super::{Buffer, Place, Plan, PlanOptions};
use crate::program::Program;

/// Places the tensors of a planned program in the banks of a board.
///
/// # Errors
///
/// [`BankError`] with what is missing, when they have no room.
pub fn place(
    program: &Program,
    mut plan: Plan,
    target: &Target,
    options: &PlanOptions,
) -> Result<Plan, BankError> {
    let lives = lifetimes(program, options.keep_all);
    let buffers = buffers(program, &lives, options.in_place && !options.keep_all);
    let board = Board::new(program, target, &buffers);
    // One arena, where the cheapest bank holds it.
    if let Some(&cheapest) = board.order.first()
        && plan.total() <= board.room[cheapest]
    {
        let places = plan.places.iter_mut().flatten();
        places.for_each(|p| p.bank = cheapest as u8);
        let total = plan.total();
        plan.bank_bytes = vec![0; cheapest];
        plan.bank_bytes.push(total);
        return Ok(plan);
    }
    let found = board.search(&buffers, options.effort);
    if found.left_over > 0 {
        return Err(board.refusal(program, &plan, target, &buffers, &found));
    }
    plan.bank_bytes.clear();
    for bank in 0..board.room.len() {
        let mine: Vec<usize> = (0..buffers.len())
            .filter(|&i| found.places[i].is_some_and(|p| p.0 == bank))
            .collect();
        let own: Vec<Buffer> = mine.iter().map(|&i| buffers[i].clone()).collect();
        let steps = 0..plan.live_bytes.len();
        let alive = steps.map(|s| own.iter().map(|b| b.alive(s)).sum());
        let (offsets, mut total) = assign(&own, alive.max().unwrap_or(0), options.effort);
        let as_found = |i: usize| found.places[i].map_or(0, |p| p.1);
        let found_total = mine.iter().map(|&i| as_found(i) + buffers[i].size).max();
        let closer = Some(total) <= found_total;
        for (&i, offset) in mine.iter().zip(offsets) {
            let offset = if closer { offset } else { as_found(i) };
            for part in &buffers[i].parts {
                plan.places[usize::from(part.tensor)] = Some(Place {
                    bank: bank as u8,
                    offset: offset + part.offset,
                    first: part.first as u16,
                    last: part.last as u16,
                });
            }
        }
        if !closer {
            total = found_total.unwrap_or(0);
        }
        plan.bank_bytes.push(total);
    }
    Ok(plan)
}

/// What a placement is judged by.
struct Board {
    /// Bytes of each bank.
    room: Vec<usize>,
    cost: Vec<f64>,
    /// Banks, the cheapest first.
    order: Vec<usize>,
    /// Bytes that a run reads from and writes to each buffer.
    traffic: Vec<f64>,
    lives: Vec<(usize, usize)>,
}

/// Bank and offset of each buffer.
struct Placement {
    places: Vec<Option<(usize, usize)>>,
    /// Bytes of buffers without a place.
    left_over: usize,
    cost: f64,
}

impl Placement {
    fn beats(&self, other: &Placement) -> bool {
        (self.left_over, self.cost) <= (other.left_over, other.cost)
    }
}

impl Board {
    fn new(program: &Program, target: &Target, buffers: &[Buffer]) -> Self {
        let cost: Vec<f64> = target.ram().map(|b| b.cost).collect();
        let mut order: Vec<usize> = (0..cost.len()).collect();
        order.sort_by(|&a, &b| cost[a].total_cmp(&cost[b]));
        Board {
            room: target.room(program.constants.bytes().len()),
            cost,
            order,
            traffic: traffic(program, buffers),
            lives: buffers.iter().map(Buffer::life).collect(),
        }
    }

    fn search(&self, buffers: &[Buffer], effort: usize) -> Placement {
        let n = buffers.len();
        let sorted = |key: &dyn Fn(usize) -> f64| {
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
            order
        };
        let size = |i: usize| buffers[i].size as f64;
        let span = |i: usize| (self.lives[i].1 - self.lives[i].0 + 1) as f64;
        let orders = [
            // By what a byte of the bank saves while it is taken.
            sorted(&|i| self.traffic[i] / (size(i) * span(i)).max(1.0)),
            sorted(&|i| self.traffic[i] / size(i).max(1.0)),
            sorted(&|i| self.traffic[i]),
            sorted(&size),
            sorted(&|i| size(i) * span(i)),
        ];
        let tried = orders.map(|order| (self.first_fit(buffers, &order), order));
        let better = |a: (Placement, Vec<usize>), b: (Placement, Vec<usize>)| match a.0.beats(&b.0)
        {
            true => a,
            false => b,
        };
        let [first, rest @ ..] = tried;
        let (mut best, mut order) = rest.into_iter().fold(first, better);
        let mut state = 0x9e37_79b9u32;
        let mut random = |n: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % n
        };
        let attempts = if n > 400 { effort / 10 } else { effort };
        for _ in 0..if n < 2 { 0 } else { attempts } {
            let (a, b) = (random(n), random(n));
            order.swap(a, b);
            let next = self.first_fit(buffers, &order);
            match next.beats(&best) {
                true => best = next,
                false => order.swap(a, b),
            }
        }
        best
    }

    fn first_fit(&self, buffers: &[Buffer], order: &[usize]) -> Placement {
        let mut offsets = vec![0; buffers.len()];
        let mut placed = vec![Vec::new(); self.room.len()];
        let mut found = Placement {
            places: vec![None; buffers.len()],
            left_over: 0,
            cost: 0.0,
        };
        for &i in order {
            for &bank in &self.order {
                let at = lowest_free(buffers, &self.lives, &placed[bank], &offsets, i);
                if at + buffers[i].size <= self.room[bank] {
                    offsets[i] = at;
                    placed[bank].push(i);
                    found.places[i] = Some((bank, at));
                    found.cost += self.cost[bank] * self.traffic[i];
                    break;
                }
            }
            if found.places[i].is_none() {
                found.left_over += buffers[i].size;
            }
        }
        found
    }

    fn refusal(
        &self,
        program: &Program,
        plan: &Plan,
        target: &Target,
        buffers: &[Buffer],
        found: &Placement,
    ) -> BankError {
        let held = self.room.iter().sum();
        if plan.lower_bound > held {
            return BankError::TooSmall {
                target: target.name.clone(),
                step: plan.peak_step,
                name: program.step_names[plan.peak_step].clone(),
                needed: plan.lower_bound,
                held,
            };
        }
        let left = (0..buffers.len()).filter(|&i| found.places[i].is_none());
        let largest = left.map(|i| &buffers[i]).max_by_key(|b| b.size);
        let tensor = largest.and_then(|b| b.parts.first()).map(|p| p.tensor);
        BankError::NoRoom {
            target: target.name.clone(),
            tensor: tensor.map_or_else(String::new, |t| program.tensor(t).name.clone()),
            bytes: largest.map_or(0, |b| b.size),
            largest: self.room.iter().copied().max().unwrap_or(0),
            held,
            needed: plan.lower_bound,
        }
    }
}

/// Bytes that a run reads from and writes to each buffer; working memory is written and read.
fn traffic(program: &Program, buffers: &[Buffer]) -> Vec<f64> {
    let mut of_tensor = vec![0.0; program.tensors.len()];
    let mut touch = |id: u16| {
        of_tensor[usize::from(id)] += program.tensor(id).bytes() as f64;
    };
    for step in &program.steps {
        let scratch: Option<u16> = Step::scratch(step);
        let read = step.inputs().into_iter().flatten();
        read.chain([step.output()]).for_each(&mut touch);
        scratch.into_iter().chain(scratch).for_each(&mut touch);
    }
    let sum = |b: &Buffer| {
        b.parts
            .iter()
            .map(|p| of_tensor[usize::from(p.tensor)])
            .sum()
    };
    buffers.iter().map(sum).collect()
}

//! The same for x86-64: eight lanes of AVX2 or sixteen of AVX-512. What does not live here: which of them there is.

use super::{BLOCK, INITIAL, State};

const K: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];

/// One word of each lane.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Words<const LANES: usize>([u32; LANES]);

/// What the rounds need of vectors.
pub mod avx2 {
    use std::arch::x86_64::*;

    use super::Words;

    pub const LANES: usize = 8;
    type Vector = __m256i;

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn load(words: &Words<LANES>) -> Vector {
        // SAFETY: the type has the vector's size and alignment.
        unsafe { _mm256_load_si256(words.0.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn store(words: &mut Words<LANES>, vector: Vector) {
        // SAFETY: the type has the vector's size and alignment.
        unsafe { _mm256_store_si256(words.0.as_mut_ptr().cast(), vector) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn splat(word: u32) -> Vector {
        _mm256_set1_epi32(word.cast_signed())
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn add(a: Vector, b: Vector) -> Vector {
        _mm256_add_epi32(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn xor3(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm256_xor_si256(_mm256_xor_si256(a, b), c)
    }

    /// To the right; `LEFT` is what `RIGHT` lacks to 32.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn rotate<const RIGHT: i32, const LEFT: i32>(a: Vector) -> Vector {
        _mm256_or_si256(_mm256_srli_epi32::<RIGHT>(a), _mm256_slli_epi32::<LEFT>(a))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn shift<const RIGHT: u32>(a: Vector) -> Vector {
        _mm256_srl_epi32(a, _mm_cvtsi32_si128(RIGHT.cast_signed()))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn choose(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm256_xor_si256(_mm256_and_si256(a, _mm256_xor_si256(b, c)), c)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn majority(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(c, _mm256_or_si256(a, b)))
    }

    /// Half the words (from `word` on) of one block for each of eight lanes (from `lane` on): rows become columns.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn turn<const N: usize>(
        blocks: &[&[u8; 64]; N],
        lane: usize,
        word: usize,
        to: &mut [Words<N>],
    ) {
        let swap = _mm256_set_epi64x(
            0x0c0d_0e0f_0809_0a0b,
            0x0405_0607_0001_0203,
            0x0c0d_0e0f_0809_0a0b,
            0x0405_0607_0001_0203,
        );
        let row = |at: usize| {
            let half = &blocks[lane + at][word * 4..word * 4 + 32];
            // SAFETY: the slice has the vector's size, and the load wants no alignment.
            _mm256_shuffle_epi8(unsafe { _mm256_loadu_si256(half.as_ptr().cast()) }, swap)
        };
        let rows: [Vector; 8] = std::array::from_fn(row);
        let (mut pairs, mut fours) = (rows, rows);
        for at in [0, 2, 4, 6] {
            pairs[at] = _mm256_unpacklo_epi32(rows[at], rows[at + 1]);
            pairs[at + 1] = _mm256_unpackhi_epi32(rows[at], rows[at + 1]);
        }
        for at in [0, 4] {
            fours[at] = _mm256_unpacklo_epi64(pairs[at], pairs[at + 2]);
            fours[at + 1] = _mm256_unpackhi_epi64(pairs[at], pairs[at + 2]);
            fours[at + 2] = _mm256_unpacklo_epi64(pairs[at + 1], pairs[at + 3]);
            fours[at + 3] = _mm256_unpackhi_epi64(pairs[at + 1], pairs[at + 3]);
        }
        for at in 0..4 {
            let low = _mm256_permute2x128_si256::<0x20>(fours[at], fours[at + 4]);
            let high = _mm256_permute2x128_si256::<0x31>(fours[at], fours[at + 4]);
            for (column, vector) in [(at, low), (at + 4, high)] {
                let column = &mut to[word + column].0[lane..lane + 8];
                // SAFETY: the slice has the vector's size, and the store wants no alignment.
                unsafe { _mm256_storeu_si256(column.as_mut_ptr().cast(), vector) }
            }
        }
    }
}

/// As `avx2`, with an instruction for each.
pub mod avx512 {
    use std::arch::x86_64::*;

    use super::Words;

    pub const LANES: usize = 16;
    type Vector = __m512i;

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn load(words: &Words<LANES>) -> Vector {
        // SAFETY: the type has the vector's size and alignment.
        unsafe { _mm512_load_si512(words.0.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn store(words: &mut Words<LANES>, vector: Vector) {
        // SAFETY: the type has the vector's size and alignment.
        unsafe { _mm512_store_si512(words.0.as_mut_ptr().cast(), vector) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn splat(word: u32) -> Vector {
        _mm512_set1_epi32(word.cast_signed())
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn add(a: Vector, b: Vector) -> Vector {
        _mm512_add_epi32(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn xor3(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm512_ternarylogic_epi32::<0x96>(a, b, c)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn rotate<const RIGHT: i32, const LEFT: i32>(a: Vector) -> Vector {
        _mm512_ror_epi32::<RIGHT>(a)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn shift<const RIGHT: u32>(a: Vector) -> Vector {
        _mm512_srli_epi32::<RIGHT>(a)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn choose(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm512_ternarylogic_epi32::<0xca>(a, b, c)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn majority(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm512_ternarylogic_epi32::<0xe8>(a, b, c)
    }
}

/// The next word of the schedule, from those 2, 7, 15 and 16 before it (6.2.2, step 1).
macro_rules! schedule {
    ($ops:ident, $two:expr, $seven:expr, $fifteen:expr, $sixteen:expr) => {{
        let (two, fifteen) = ($two, $fifteen);
        let one =
            $ops::xor3($ops::rotate::<17, 15>(two), $ops::rotate::<19, 13>(two), $ops::shift::<10>(two));
        let zero = $ops::xor3(
            $ops::rotate::<7, 25>(fifteen),
            $ops::rotate::<18, 14>(fifteen),
            $ops::shift::<3>(fifteen),
        );
        $ops::add($ops::add($sixteen, zero), $ops::add($seven, one))
    }};
}

/// Advances as many states as a vector has lanes.
macro_rules! together {
    ($name:ident, $ops:ident, $features:literal) => {
        #[target_feature(enable = $features)]
        pub fn $name(states: &mut [&mut State], data: &[&[u8]]) {
            const LANES: usize = $ops::LANES;
            let Some(first) = data.first() else { return };
            // A lane that is not needed goes through the first one's bytes.
            let data: [_; LANES] =
                std::array::from_fn(|lane| data.get(lane).unwrap_or(first).as_chunks::<BLOCK>().0);
            let word = |at: usize| {
                let of = |lane: usize| states.get(lane).map_or(INITIAL[at], |state| state[at]);
                $ops::load(&Words::<LANES>(std::array::from_fn(of)))
            };
            let mut state: [_; 8] = std::array::from_fn(word);
            let mut words = [Words([0; LANES]); 16];
            for at in 0..first.len() / BLOCK {
                let blocks: [_; LANES] = std::array::from_fn(|lane| &data[lane][at]);
                for lane in (0..LANES).step_by(avx2::LANES) {
                    avx2::turn(&blocks, lane, 0, &mut words);
                    avx2::turn(&blocks, lane, 8, &mut words);
                }
                let mut words: [_; 16] = std::array::from_fn(|at| $ops::load(&words[at]));
                let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
                for (quarter, k) in K.chunks_exact(16).enumerate() {
                    for at in 0..16 {
                        let s1 = $ops::xor3(
                            $ops::rotate::<6, 26>(e),
                            $ops::rotate::<11, 21>(e),
                            $ops::rotate::<25, 7>(e),
                        );
                        let known = $ops::add($ops::add(h, $ops::splat(k[at])), words[at]);
                        let t1 = $ops::add(known, $ops::add(s1, $ops::choose(e, f, g)));
                        let s0 = $ops::xor3(
                            $ops::rotate::<2, 30>(a),
                            $ops::rotate::<13, 19>(a),
                            $ops::rotate::<22, 10>(a),
                        );
                        let t2 = $ops::add(s0, $ops::majority(a, b, c));
                        (h, g, f, e) = (g, f, e, $ops::add(d, t1));
                        (d, c, b, a) = (c, b, a, $ops::add(t1, t2));
                        // For the next sixteen rounds.
                        if quarter < 3 {
                            words[at] = schedule!(
                                $ops,
                                words[(at + 14) % 16],
                                words[(at + 9) % 16],
                                words[(at + 1) % 16],
                                words[at]
                            );
                        }
                    }
                }
                for (word, more) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
                    *word = $ops::add(*word, more);
                }
            }
            for (at, word) in state.into_iter().enumerate() {
                let mut words = Words([0; LANES]);
                $ops::store(&mut words, word);
                states.iter_mut().zip(words.0).for_each(|(state, word)| state[at] = word);
            }
        }
    };
}

together!(together8, avx2, "avx2,bmi1,bmi2");
together!(together16, avx512, "avx2,bmi1,bmi2,avx512f,avx512vl");

/// One round; what the variables mean moves on by one each time, instead of their values.
macro_rules! round {
    ($a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident, $word:expr) => {
        $h = $h.wrapping_add($word).wrapping_add(($e & $f) ^ (!$e & $g));
        $h = $h.wrapping_add($e.rotate_right(6) ^ $e.rotate_right(11) ^ $e.rotate_right(25));
        $d = $d.wrapping_add($h);
        $h = $h.wrapping_add($a.rotate_right(2) ^ $a.rotate_right(13) ^ $a.rotate_right(22));
        $h = $h.wrapping_add(($a & $b) | ($c & ($a | $b)));
    };
}

/// One stream: the schedules of eight blocks at once, as they do not depend on each other; then block by block.
#[target_feature(enable = "avx2,bmi1,bmi2")]
pub fn alone(state: &mut State, data: &[u8]) {
    let mut words = [Words([0; avx2::LANES]); 64];
    for blocks in data.as_chunks::<BLOCK>().0.chunks(avx2::LANES) {
        // What is lacking at the end is the last block once more, for nobody.
        let each: [_; avx2::LANES] = std::array::from_fn(|lane| &blocks[lane.min(blocks.len() - 1)]);
        avx2::turn(&each, 0, 0, &mut words);
        avx2::turn(&each, 0, 8, &mut words);
        for at in 16..64 {
            let before = |by: usize| avx2::load(&words[at - by]);
            let word = schedule!(avx2, before(2), before(7), before(15), before(16));
            avx2::store(&mut words[at], word);
        }
        for (words, k) in words.iter_mut().zip(K) {
            let sum = avx2::add(avx2::load(words), avx2::splat(k));
            avx2::store(words, sum);
        }
        (0..blocks.len()).for_each(|lane| rounds(state, &words, lane));
    }
}

#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2")]
fn rounds(state: &mut State, words: &[Words<{ avx2::LANES }>; 64], lane: usize) {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for words in words.chunks_exact(8) {
        round!(a b c d e f g h, words[0].0[lane]);
        round!(h a b c d e f g, words[1].0[lane]);
        round!(g h a b c d e f, words[2].0[lane]);
        round!(f g h a b c d e, words[3].0[lane]);
        round!(e f g h a b c d, words[4].0[lane]);
        round!(d e f g h a b c, words[5].0[lane]);
        round!(c d e f g h a b, words[6].0[lane]);
        round!(b c d e f g h a, words[7].0[lane]);
    }
    for (word, more) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(more);
    }
}

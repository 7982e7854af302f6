//! SHA-256 (FIPS 180-4) with a processor's wide vectors, for those that have no instructions for it: many streams at
//! once, one in each lane, in the time that two or three streams take one after another.
//! What does not live here: padding, and which streams.

#[cfg(target_arch = "x86_64")]
mod x86_64;

/// Bytes that are hashed at once.
pub const BLOCK: usize = 64;

/// How far a stream is hashed.
pub type State = [u32; 8];

/// Of nothing yet.
pub const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The vectors of this processor: whoever has one knows that they are there.
#[derive(Clone, Copy, Debug)]
pub struct Vectors(Width);

#[derive(Clone, Copy, Debug)]
enum Width {
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Vectors {
    /// None where there are none, and where SHA-256 has instructions of its own.
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if !is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
        {
            let wide = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
            return Some(Self(if wide { Width::Avx512 } else { Width::Avx2 }));
        }
        None
    }

    /// Streams that are hashed at once.
    pub fn lanes(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Width::Avx2 => x86_64::avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Width::Avx512 => x86_64::avx512::LANES,
        }
    }

    /// Advances each state by the bytes in the same place of `data`: at most `lanes`, all of one length, whole blocks.
    /// What is beyond that is not hashed.
    pub fn together(self, states: &mut [&mut State], data: &[&[u8]]) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` has found AVX2, and nothing else makes this value.
            Width::Avx2 => unsafe { x86_64::together8(states, data) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` has found AVX2, AVX-512F and AVX-512VL, and nothing else makes this value.
            Width::Avx512 => unsafe { x86_64::together16(states, data) },
        }
    }

    /// Advances one state by whole blocks; bytes beyond the last one are not hashed.
    pub fn alone(self, state: &mut State, data: &[u8]) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` has found AVX2, BMI1 and BMI2, and nothing else makes this value.
            Width::Avx2 | Width::Avx512 => unsafe { x86_64::alone(state, data) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Vectors> {
        let Some(widest) = Vectors::detect() else {
            println!("not run: this processor has no such vectors, or instructions for SHA-256");
            return Vec::new();
        };
        #[cfg(target_arch = "x86_64")]
        return vec![widest, Vectors(Width::Avx2)];
        #[cfg(not(target_arch = "x86_64"))]
        vec![widest]
    }

    /// FIPS 180-4's own example, in one block and (of 56 bytes) in two.
    #[test]
    fn known_answers() {
        let mut one = [0; BLOCK];
        one[..4].copy_from_slice(b"abc\x80");
        one[63] = 24;
        let mut two = [0; 2 * BLOCK];
        two[..57].copy_from_slice(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq\x80");
        two[126..].copy_from_slice(&448_u16.to_be_bytes());
        for vectors in all() {
            let mut state = INITIAL;
            vectors.alone(&mut state, &one);
            assert_eq!((state[0], state[7]), (0xba78_16bf, 0xf200_15ad));
            state = INITIAL;
            vectors.alone(&mut state, &two);
            assert_eq!((state[0], state[7]), (0x248d_6a61, 0x19db_06c1));
        }
    }

    #[test]
    fn a_lane_finds_what_the_stream_alone_finds() {
        let bytes: Vec<u8> =
            (0..200_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for vectors in all() {
            for streams in 1..=vectors.lanes() {
                for blocks in [0, 1, 7, 8, 9, 40] {
                    let len = blocks * BLOCK;
                    let data: Vec<_> = (0..streams).map(|n| &bytes[n * 999..n * 999 + len]).collect();
                    // Each stream has come to a place of its own.
                    let mut states: Vec<_> =
                        (0..streams).map(|n| INITIAL.map(|word| word ^ n as u32)).collect();
                    let mut expected = states.clone();
                    for (state, data) in expected.iter_mut().zip(&data) {
                        vectors.alone(state, data);
                    }
                    vectors.together(&mut states.iter_mut().collect::<Vec<_>>(), &data);
                    assert_eq!(states, expected, "{vectors:?}, {streams} streams, {blocks} blocks");
                }
            }
        }
    }
}

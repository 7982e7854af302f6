//! SHA-256 (FIPS 180-4) with a processor's wide vectors, for those that have no instructions for it: many streams at
//! once, one in each lane, in the time that one or two take.
//! What does not live here: padding, and which streams.

#[cfg(target_arch = "x86_64")]
mod x86_64;

/// Bytes that are hashed at once.
pub const BLOCK: usize = 64;

/// Streams that are hashed at once.
pub const LANES: usize = 8;

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

#[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, unused_variables, reason = "only x86-64 has any"))]
impl Vectors {
    /// None where there are none, and where SHA-256 has instructions of its own: those are faster.
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("sha") {
            return None;
        }
        Self::all().pop()
    }

    /// All that this processor has, the fastest last.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
        {
            all.push(Self(Width::Avx2));
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
                all.push(Self(Width::Avx512));
            }
        }
        all
    }

    /// Advances each state by the bytes in the same place of `data`: at most `LANES`, all of one length, whole blocks.
    /// What is beyond that is not hashed.
    pub fn together(self, states: &mut [&mut State], data: &[&[u8]]) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `all` has found AVX2, BMI1 and BMI2, and nothing else makes this value.
            Width::Avx2 => unsafe { x86_64::together_by_avx2(states, data) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `all` has found these, AVX-512F and AVX-512VL, and nothing else makes this value.
            Width::Avx512 => unsafe { x86_64::together_by_avx512(states, data) },
        }
    }

    /// Advances one state by whole blocks; bytes beyond the last one are not hashed.
    pub fn alone(self, state: &mut State, data: &[u8]) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `all` has found AVX2, BMI1 and BMI2, and nothing else makes this value.
            Width::Avx2 | Width::Avx512 => unsafe { x86_64::alone(state, data) },
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    fn all() -> Vec<Vectors> {
        let all = Vectors::all();
        if all.len() < 2 {
            println!("not run: AVX-512, or any vectors; this processor has {all:?}");
        }
        all
    }

    /// Different in every place.
    fn noise(len: usize) -> Vec<u8> {
        (0..len as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    /// FIPS 180-4, 5.1.1.
    fn padded(message: &[u8]) -> Vec<u8> {
        let mut bytes = [message, &[0x80]].concat();
        bytes.resize((bytes.len() + 8).next_multiple_of(BLOCK) - 8, 0);
        bytes.extend_from_slice(&(message.len() as u64 * 8).to_be_bytes());
        bytes
    }

    fn bytes(state: State) -> Vec<u8> {
        state.map(u32::to_be_bytes).concat()
    }

    fn alone(vectors: Vectors, message: &[u8]) -> Vec<u8> {
        let mut state = INITIAL;
        vectors.alone(&mut state, &padded(message));
        bytes(state)
    }

    fn together(vectors: Vectors, messages: &[&[u8]]) -> Vec<Vec<u8>> {
        let padded: Vec<_> = messages.iter().map(|message| padded(message)).collect();
        let mut states = vec![INITIAL; messages.len()];
        let data: Vec<_> = padded.iter().map(Vec::as_slice).collect();
        vectors.together(&mut states.iter_mut().collect::<Vec<_>>(), &data);
        states.into_iter().map(bytes).collect()
    }

    /// NIST's examples (FIPS 180-4) of one block and of two.
    #[test]
    fn known_answers() {
        let two = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        let answers: [(&[u8], [u32; 8]); 3] = [
            (
                b"",
                [
                    0xe3b0_c442,
                    0x98fc_1c14,
                    0x9afb_f4c8,
                    0x996f_b924,
                    0x27ae_41e4,
                    0x649b_934c,
                    0xa495_991b,
                    0x7852_b855,
                ],
            ),
            (
                b"abc",
                [
                    0xba78_16bf,
                    0x8f01_cfea,
                    0x4141_40de,
                    0x5dae_2223,
                    0xb003_61a3,
                    0x9617_7a9c,
                    0xb410_ff61,
                    0xf200_15ad,
                ],
            ),
            (
                two,
                [
                    0x248d_6a61,
                    0xd206_38b8,
                    0xe5c0_2693,
                    0x0c3e_6039,
                    0xa33c_e459,
                    0x64ff_2167,
                    0xf6ec_edd4,
                    0x19db_06c1,
                ],
            ),
        ];
        for vectors in all() {
            for (message, answer) in answers {
                assert_eq!(alone(vectors, message), bytes(answer), "{vectors:?}");
                let all = together(vectors, &[message; LANES]);
                assert!(all.iter().all(|one| *one == bytes(answer)), "{vectors:?}");
            }
        }
    }

    #[test]
    fn a_stream_alone_has_the_digest_that_another_crate_finds() {
        let noise = noise(100_000);
        for vectors in all() {
            for len in (0..1200).chain([4095, 4096, 65_537, 100_000]) {
                let message = &noise[..len];
                assert_eq!(alone(vectors, message), Sha256::digest(message).to_vec(), "{vectors:?}, {len}");
            }
        }
    }

    #[test]
    fn each_lane_has_the_digest_that_another_crate_finds() {
        let noise = noise(200_000);
        for vectors in all() {
            for streams in 1..=LANES {
                for len in [0, 1, 55, 56, 64, 448, 500, 2500, 65_000] {
                    let messages: Vec<_> = (0..streams).map(|lane| &noise[lane * 999..][..len]).collect();
                    let expected: Vec<_> = messages.iter().map(|one| Sha256::digest(one).to_vec()).collect();
                    assert_eq!(together(vectors, &messages), expected, "{vectors:?}, {streams}, {len}");
                }
            }
        }
    }

    /// Lanes go on from where each has come to, whichever way.
    #[test]
    fn a_lane_goes_on_where_the_stream_alone_was() {
        let noise = noise(40 * BLOCK);
        for vectors in all() {
            let mut expected = vec![INITIAL; LANES];
            for (lane, state) in expected.iter_mut().enumerate() {
                vectors.alone(state, &noise[..lane * BLOCK]);
            }
            let mut states = expected.clone();
            expected.iter_mut().for_each(|state| vectors.alone(state, &noise));
            let data = vec![noise.as_slice(); states.len()];
            vectors.together(&mut states.iter_mut().collect::<Vec<_>>(), &data);
            assert_eq!(states, expected, "{vectors:?}");
        }
    }
}

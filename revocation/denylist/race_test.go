//go:build race

package denylist

// raceDetector tells whether the tests run under the race detector, which makes
// sync.Pool forget at random.
const raceDetector = true

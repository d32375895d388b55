//go:build !race

package denylist

// raceDetector tells whether the tests run under the race detector.
const raceDetector = false

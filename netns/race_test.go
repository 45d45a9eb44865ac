//go:build race

package netns_test

// raceDetector says that the race detector is on, which makes values escape.
const raceDetector = true

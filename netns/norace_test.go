//go:build !race

package netns_test

const raceDetector = false

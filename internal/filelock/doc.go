// Package filelock takes locks that other processes respect (flock(2)), and stops
// waiting when a context ends. The kernel releases a lock when its process ends.
package filelock

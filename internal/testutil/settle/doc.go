// Package settle waits for work that the kernel does in the background, so that it does not disturb a measurement.
package settle

// Package sockfilter limits what a socket receives, by classic BPF (bpf(4),
// SO_ATTACH_FILTER in socket(7)).
package sockfilter

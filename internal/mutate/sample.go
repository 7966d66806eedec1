package main

import (
	"math/rand/v2"
	"slices"
)

// quotas divides n among sizes in proportion; what the division leaves over goes
// to the largest remainders, so that they add up to n.
func quotas(n int, sizes []int) []int {
	total := 0
	for _, s := range sizes {
		total += s
	}
	shares, rest := make([]int, len(sizes)), n
	order := make([]int, len(sizes))
	for i, s := range sizes {
		order[i] = i
		shares[i] = n * s / max(total, 1)
		rest -= shares[i]
	}
	slices.SortStableFunc(order, func(a, b int) int { return n*sizes[b]%total - n*sizes[a]%total })
	for _, i := range order[:min(rest, len(order))] {
		shares[i]++
	}
	return shares
}

// sample draws n changes that compile, from each package as many as its size is of
// the whole, all sites being equally likely and no line being drawn twice. Where a package
// has fewer, it gives what it has.
func sample(sources []*source, n int, seed uint64) []mutant {
	var sizes []int
	for _, s := range sources {
		sizes = append(sizes, s.lines())
	}
	var drawn []mutant
	for i, quota := range quotas(n, sizes) {
		drawn = append(drawn, draw(sources[i], quota, seed)...)
	}
	return drawn
}

func draw(s *source, quota int, seed uint64) []mutant {
	all := s.mutants()
	r := rand.New(rand.NewPCG(seed, 0))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	type line struct {
		f *file
		n int
	}
	var drawn []mutant
	taken := map[line]bool{}
	for _, m := range all {
		if len(drawn) == quota {
			break
		}
		at := line{m.file, m.line}
		if taken[at] || !s.compiles(m) {
			continue
		}
		taken[at] = true
		drawn = append(drawn, m)
	}
	return drawn
}

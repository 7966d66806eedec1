// Package rules checks rules that a compiler does not: which package may import
// which, that every directory has one package comment, that tests do not sleep
// in real time or skip, and some more.
//
// [Load] parses the tree, each rule is a method of [Tree] and returns one line
// per offence, "file:line: what is wrong", or nothing. The rules read source
// files only, except [Tree.Blocks], which asks the go command what packages export. What they cannot see, such as a function reached through an
// interface, they let pass; what they report is always there.
package rules

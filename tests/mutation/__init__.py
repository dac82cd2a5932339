"""`make mutate`: do the tests notice when one operator, number, word or argument of the rules is changed?"""

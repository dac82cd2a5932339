"""Reasons of verdicts: a code for machines, and a sentence that a clinician understands."""

from __future__ import annotations

from dataclasses import dataclass

_DETAILS = {
    "a_newer_status_is_recorded": "A newer entry says that it is not so any more.",
    "cause_not_in_source": "It gives a cause that no cited entry gives.",
    "negation_of_something_else": "It denies something else than the cited entry does.",
    "words_in_another_order": "It puts the words or numbers of the cited entry in another order.",
    "dosage_not_whole": "It tells how a drug is taken without all of its recorded dosage.",
    "change_is_another": "The cited values changed otherwise.",
    "count_is_another": "The record holds another number of these, or not all of them are cited.",
    "as_needed_lost": "The entry says as needed, and the sentence does not.",
    "a_newer_one_is_recorded": "The record holds a newer one than the cited entry.",
    "age_is_another": "The age at that time is another one.",
    "age_not_computable": "The age cannot be computed: a date is missing or not to the day.",
    "an_older_one_is_recorded": "The record holds an older one than the cited entry.",
    "another_of_the_same_time": "The record holds another one of the same time.",
    "another_value_is_further_out": "The record holds a value that is further out.",
    "duration_is_another": "It lasted for another time.",
    "duration_not_computable": "How long it lasted cannot be computed: a date is missing or not to the day.",
    "others_are_recorded": "The record holds further ones.",
    "record_not_read_whole": "It speaks of the whole record, which was not read whole.",
    "undated_values": "It speaks of time, and a value of the record has no date.",
    "values_that_do_not_compare": "It compares values that are not all plain numbers in one unit.",
    "another_person": "It is about another person than the cited entry.",
    "certainty_lost": "The entry is recorded as not certain, and the sentence does not say so.",
    "cites_nothing": "It cites no entry of the record that it speaks of.",
    "cites_unknown": "It cites an entry that is not in the record, or was not read.",
    "cites_unknown_label": "It cites a label that was not given.",
    "date_not_in_source": "Its date is not in the cited entry.",
    "date_of_something_else": "Its date belongs to something else in the cited entry.",
    "day_of_the_note_missing": "It quotes a note without the day on which the sentence was first written.",
    "does_not_name": "It does not name what the cited entry is about.",
    "compares_one_picture": "It tells a change, and rests on one picture.",
    "gives_advice": "It advises instead of telling what is seen.",
    "names_a_drug": "It names a drug, which no picture shows.",
    "read_from_a_picture": "It was read from a picture by the model: no rule can check it.",
    "speaks_of_a_report": "It speaks of a report or the record instead of the picture.",
    "negation_lost": "The cited entry says that something is not so, and the sentence does not.",
    "negation_not_in_source": "It denies something that the cited entry does not deny.",
    "no_heading_for_it": "This kind of summary has no heading for it.",
    "not_a_claim": "It says nothing, or is no object with a text and a list of cited entries.",
    "not_a_quotation": "It takes words out of a note without quoting the sentence whole.",
    "number_not_in_source": "Its number is not in the cited entry.",
    "number_of_something_else": "Its number belongs to something else in the cited entry.",
    "relative_date": "It tells time from today, which will be wrong when it is read.",
    "said_before": "It repeats an earlier sentence.",
    "second_pass_no": "Asked again, the engine found that the cited text says otherwise.",
    "second_pass_not_stated": "Asked again, the engine found that the cited text does not say it.",
    "section_of_the_note_missing": "It quotes a note without the section that the sentence stands in.",
    "sign_not_in_source": "It holds a sign or a letter of odd shape that no cited entry has.",
    "status_lost": "The entry has a status that changes its meaning, and the sentence does not say it.",
    "status_not_in_source": "It gives a status that the cited entry does not have.",
    "the_record_says_more": "The record's own line says more and is shown instead.",
    "too_long": "It is too long to be checked.",
    "unit_missing": "It leaves out the unit of a value.",
    "unit_not_in_source": "Its unit is not the recorded one.",
    "value_beside_the_quotation": "A number or date beside the quotation is borne out by nothing.",
    "value_of_another_day": "It pairs a value with the day of another value.",
    "whose_status_is_unclear": "It is not clear to which of the cited entries the status belongs.",
    "whose_value_is_unclear": "It is not clear to which of the cited entries a value belongs.",
    "word_not_in_source": "It holds a word that no cited entry accounts for.",
    "words_beside_the_quotation": "Words beside the quotation are borne out by nothing.",
}
CODES = frozenset(_DETAILS)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a claim is not supported."""

    code: str
    """For machines, stable: `number_not_in_source`."""
    detail: str
    """For people; it never repeats what the record or the sentence says."""


def reason_of(code: str) -> Reason:
    """Return the reason of a code as the rules give it: `status_lost:stopped`."""
    name, _, what = code.partition(":")
    return Reason(name, _DETAILS[name] + (f" ({what.replace('_', ' ')})" if what else ""))

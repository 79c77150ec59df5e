"""Words that answers are built from. All brands, people and domains are invented."""

BRANDS = (
    "Alpenrad",
    "Bluefern",
    "Cordova Labs",
    "Driftwell",
    "Everline",
    "Foxglove",
    "Granitec",
    "Harborview",
    "Inkwell",
    "Juniper & Co",
    "Kestrel",
    "Lumenary",
    "Mosaiq",
    "Northpass",
    "Oakhaven",
    "Pinecrest",
    "Quillon",
    "Riverstone",
    "Silvertree",
    "Tandem",
    "Umbra",
    "Verano",
    "Wayfarer",
    "Xylo",
    "Yarrow",
    "Zephyr",
)
TOPICS = (
    "pricing",
    "support",
    "onboarding",
    "reliability",
    "integrations",
    "reporting",
    "security",
    "ease of use",
    "battery life",
    "warranty",
    "delivery times",
    "sustainability",
    "value for money",
    "customer reviews",
)
SITES = (
    ("reviews.example", "Independent reviews"),
    ("guide.example", "Buying guide"),
    ("news.example", "Industry news"),
    ("forum.example", "Community forum"),
    ("lab.example", "Lab tests"),
    ("shop.example", "Shop"),
    ("wiki.example", "Encyclopedia"),
    ("blog.example", "Expert blog"),
    ("data.example", "Open data"),
    ("compare.example", "Comparison portal"),
    ("press.example", "Press releases"),
    ("video.example", "Video reviews"),
)
SENTENCES = (
    "{brand} is often named first when {topic} matters most, and its latest release widened that lead.",
    "For smaller teams {brand} keeps {topic} simple, although the entry plan leaves out a few features.",
    "Reviewers praise {brand} for {topic}, while noting that {other} costs less over two years.",
    "Compared with {other}, {brand} invests more in {topic} and publishes its results every quarter.",
    "If {topic} is your main concern, {brand} and {other} are both safe choices with long track records.",
    "Several 2025 tests rank {brand} above {other} on {topic}, by a margin of {number} percent.",
    "{brand} changed its terms last year; {topic} improved, and about {number} percent of users noticed.",
    "Long-term owners of {brand} report few problems, mostly around {topic} during the first weeks.",
    "Experts advise trying {brand} for thirty days before deciding, because {topic} varies by region.",
    "In surveys {number} percent of customers would choose {brand} again, citing {topic} above all.",
)
DESCRIPTIONS = (
    "A detailed look at {brand} and {other}, with {topic} measured over several weeks and a summary table.",
    "Our editors compared {number} candidates on {topic}. {brand} came out ahead of {other} mostly.",
    "Readers share their experience with {brand}: what works, what does not, and how {topic} changed.",
    "Updated guide to {topic} for buyers undecided between {brand}, {other} and newer names.",
)
QUESTIONS = (
    "Is {brand} better than {other}?",
    "How much does {brand} cost?",
    "What do users say about {brand}?",
    "Which is best for {topic}?",
    "Is {brand} worth it?",
    "Who are the competitors of {brand}?",
)

QUERY_MARK = "~query~"
"""Stands for the task's own query in prepared Google results; replaced when an answer is composed."""
